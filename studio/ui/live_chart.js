const say = props.texts[language];
const box = element.querySelector(".live-chart");
const NAMES = ["loss", "learning_rate", "grad_norm"];
let shown = null; // the run that is drawn
let since = 0;
let generation = 0;
let drawn = 0;
let live = true;
let busy = false;
let lastAsked = 0;

box.setAttribute("aria-label", say.aria);
box.dataset.empty = say.empty;

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
  annotations: [title(say.loss, 1.005), title(say.learning_rate, 0.445), title(say.grad_norm, 0.19)],
  xaxis: axis(say.step, { anchor: "y3", rangemode: "tozero" }),
  yaxis: axis("", { domain: [0.54, 1], automargin: false }),
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
const traces = (answer) => [
  line(answer.series.loss, say.training, 1, "--chart-1"),
  line(answer.series.learning_rate, say.learning_rate, 2, "--chart-3", { showlegend: false }),
  line(answer.series.grad_norm, say.grad_norm, 3, "--chart-4", { showlegend: false }),
  validation(answer.measured),
];

const draw = async (plotly, answer) => {
  const lengths = NAMES.map((name) => answer.series[name].x.length);
  if (answer.whole) {
    drawn = lengths[0];
    await plotly.react(box, traces(answer), layout(), options);
    return;
  }
  if (lengths[0]) {
    drawn += lengths[0];
    const of = (key) => NAMES.map((name) => answer.series[name][key]);
    await plotly.extendTraces(box, { x: of("x"), y: of("y") }, [0, 1, 2]);
    if (box.data[0].mode !== "lines" && drawn > 1) await plotly.restyle(box, { mode: "lines" }, [0, 1, 2]);
  }
  if (answer.measured.length !== box.data[3].x.length) {
    const marks = validation(answer.measured);
    await plotly.restyle(box, { x: [marks.x], y: [marks.y], showlegend: marks.showlegend }, [3]);
  }
};

const clear = (plotly) => {
  plotly.purge(box);
  [shown, since, drawn] = [null, 0, 0];
  for (const mark of ["points", "step", "run"]) delete box.dataset[mark];
};

const tick = async (asap = false) => {
  const due = asap === true || performance.now() - lastAsked > (live ? 600 : 4000);
  if (busy || !visible() || !due) return;
  const wanted = props.value || null;
  busy = true;
  lastAsked = performance.now();
  try {
    const plotly = await loadPlotly();
    if (!wanted || wanted !== shown) clear(plotly);
    if (!wanted) return;
    if (drawn > 8000) since = 0; // draw anew, decimated, before the page grows heavy
    const answer = await server.tail({ run: wanted, since, generation });
    if (wanted !== props.value) return;
    shown = wanted;
    live = answer.live;
    if (answer.step || answer.measured.length) await draw(plotly, answer);
    [since, generation] = [answer.step, answer.generation];
    Object.assign(box.dataset, { points: drawn, step: since, run: shown });
    delete box.dataset.fault;
  } catch (error) {
    live = false; // ask less often while the server is away
    box.dataset.fault = say.away;
  } finally {
    busy = false;
  }
};

const timer = setInterval(() => (element.isConnected ? tick() : clearInterval(timer)), 300);
watch("value", () => tick(true));
whenThemeChanges(() => {
  if (!shown || !box.data) return;
  window.Plotly.relayout(box, layout());
  window.Plotly.restyle(box, { "line.color": [colour("--chart-1"), colour("--chart-3"), colour("--chart-4")] }, [0, 1, 2]);
  window.Plotly.restyle(box, { "marker.color": colour("--chart-2") }, [3]);
});
tick(true);
