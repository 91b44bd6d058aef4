const say = props.texts[language];
const status = element.querySelector(".live-status");
const box = element.querySelector(".live-chart");
const choice = element.querySelector(".chart-bar select");
const NAMES = ["figure", "learning_rate", "grad_norm"];
const named = (figure) => say[`figure.${figure}`] ?? figure;
let wanted = ""; // the figure that the user chose, if any
let spikes = []; // of the loss, as drawn
let figure = null; // the one that is drawn
let nats = false;
let shown = null; // the run that is drawn
let since = 0;
let generation = 0;
let drawn = 0;
let stamp = ""; // of the status that is shown
let live = true;
let busy = false;
let lastAsked = -Infinity;
let lastLook = -Infinity;

box.setAttribute("aria-label", say.aria);
box.dataset.empty = say.empty;
choice.setAttribute("aria-label", say.show);
choice.hidden = true;

const title = (text, top) => ({
  text, x: 0, y: top, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom", showarrow: false,
  font: { size: 12, color: colour("--body-text-color-subdued") },
});
const layout = () => ({
  ...frame(),
  uirevision: shown, // zoom stays until another run is chosen
  height: 420,
  margin: { l: 52, r: 8, t: 26, b: 40 },
  showlegend: true,
  legend: { orientation: "h", x: 1, xanchor: "right", y: 1.0, yanchor: "bottom" },
  hovermode: "x",
  annotations: [title(nats ? say.loss : named(figure), 1.005), title(say.learning_rate, 0.445), title(say.grad_norm, 0.19)],
  xaxis: axis(say.step, { anchor: "y3", rangemode: "tozero" }),
  yaxis: axis("", { domain: [0.54, 1], automargin: false, uirevision: `${shown} ${figure}` }),
  yaxis2: axis("", { domain: [0.29, 0.44], tickformat: "~e", nticks: 4, automargin: false }),
  yaxis3: axis("", { domain: [0, 0.185], nticks: 4, automargin: false }),
});
const line = (series, name, number, hue, more = {}) => ({
  x: series.x, y: series.y, name, type: "scatter", mode: series.x.length > 1 ? "lines" : "lines+markers",
  xaxis: "x", yaxis: number === 1 ? "y" : `y${number}`, line: { width: 1.6, color: colour(hue) }, ...more,
});
const validation = (measured) => ({
  x: measured.map((point) => point[0]), y: measured.map((point) => point[1]), name: say.validation, type: "scatter",
  mode: "markers", marker: { size: 9, symbol: "diamond", color: colour("--chart-2") }, showlegend: measured.length > 0,
});
const marked = () => ({
  x: spikes.map((point) => point[0]), y: spikes.map((point) => point[1]), name: say.spike, type: "scatter",
  mode: "markers", marker: { size: 8, symbol: "triangle-down-open", color: colour("--state-bad") }, showlegend: spikes.length > 0,
});
const traces = (answer) => [
  line(answer.series.figure, say.training, 1, "--chart-1"),
  line(answer.series.learning_rate, say.learning_rate, 2, "--chart-3", { showlegend: false }),
  line(answer.series.grad_norm, say.grad_norm, 3, "--chart-4", { showlegend: false }),
  validation(answer.measured),
  marked(),
];

const offer = (figures) => {
  const offered = [...choice.options].map((option) => option.value);
  if (offered.join("\n") !== figures.join("\n"))
    choice.replaceChildren(...figures.map((name) => new Option(named(name), name)));
  choice.value = figure;
  choice.hidden = figures.length < 2;
};

const draw = async (plotly, answer) => {
  const lengths = NAMES.map((name) => answer.series[name].x.length);
  if (answer.whole) spikes = [];
  spikes.push(...answer.spikes);
  box.dataset.spikes = spikes.length;
  if (answer.whole) {
    drawn = Math.max(...lengths);
    await plotly.react(box, traces(answer), layout(), options);
    return;
  }
  if (Math.max(...lengths)) {
    drawn += Math.max(...lengths);
    const of = (key) => NAMES.map((name) => answer.series[name][key]);
    await plotly.extendTraces(box, { x: of("x"), y: of("y") }, [0, 1, 2]);
    if (box.data[0].mode !== "lines" && drawn > 1) await plotly.restyle(box, { mode: "lines" }, [0, 1, 2]);
  }
  if (answer.spikes.length) {
    const marks = marked();
    await plotly.restyle(box, { x: [marks.x], y: [marks.y], showlegend: true }, [4]);
  }
  if (answer.measured.length !== box.data[3].x.length) {
    const marks = validation(answer.measured);
    await plotly.restyle(box, { x: [marks.x], y: [marks.y], showlegend: marks.showlegend }, [3]);
  }
};

const clear = (plotly) => {
  plotly?.purge(box);
  [shown, since, drawn, figure] = [null, 0, 0, null];
  choice.hidden = true;
  for (const mark of ["points", "step", "run", "figure"]) delete box.dataset[mark];
};

const chart = async (run, answer) => {
  if (!run && !shown) return; // megabytes that a page without a run does not need
  const plotly = await loadPlotly();
  if (run !== shown) clear(plotly);
  if (!run || run !== props.value.run) return;
  shown = run;
  if (!answer.whole && answer.figure !== figure) {
    since = 0; // what the stage is about was told for the first time
    return;
  }
  [figure, nats] = [answer.figure, answer.nats];
  offer(answer.figures);
  if (answer.step || answer.measured.length) await draw(plotly, answer);
  [since, generation] = [answer.step, answer.generation];
  Object.assign(box.dataset, { points: drawn, step: since, run: shown, figure });
};

const tick = async () => {
  const now = performance.now();
  if (busy || !props.value || !visible() || now - lastAsked < (live ? 450 : 4000)) return;
  busy = true;
  lastAsked = now;
  try {
    const { run } = props.value;
    if (run) loadPlotly().catch(() => {}); // while the server answers; chart() tells what is wrong
    if (run !== (shown ?? "") || drawn > 8000) since = 0; // draw anew, decimated, before the page grows heavy
    const asked = wanted;
    const answer = await server.tail({ run, since, generation, figure: asked, status: stamp, language });
    if (run !== props.value.run || asked !== wanted) {
      lastAsked = -Infinity;
      return;
    }
    live = answer.live;
    if (answer.status) {
      status.innerHTML = answer.status.html; // escaped where it was made
      stamp = answer.status.stamp;
    }
    if (answer.mark !== props.value.mark) {
      if (now - lastLook > 900) {
        lastLook = now;
        trigger("tick");
      } else lastAsked = -Infinity; // or the end of a run would wait for the slow rounds that follow it
    }
    await chart(run, answer);
    delete box.dataset.fault;
  } catch (error) {
    live = false; // ask less often while the server is away
    box.dataset.fault = say.away;
  } finally {
    busy = false;
  }
};
const soon = () => {
  lastAsked = -Infinity; // also where an answer is awaited now
  tick();
};

let mounted = false; // gradio may run this first and put the element into the page then
const timer = setInterval(() => {
  if (element.isConnected) tick();
  else if (mounted) clearInterval(timer);
  mounted ||= element.isConnected;
}, 250);
watch("value", soon);
choice.addEventListener("change", () => {
  [wanted, since] = [choice.value, 0];
  soon();
});
whenThemeChanges(() => {
  if (!shown || !box.data) return;
  window.Plotly.relayout(box, layout());
  window.Plotly.restyle(box, { "line.color": [colour("--chart-1"), colour("--chart-3"), colour("--chart-4")] }, [0, 1, 2]);
  window.Plotly.restyle(box, { "marker.color": [colour("--chart-2"), colour("--state-bad")] }, [3, 4]);
});
soon();
