const box = element.querySelector(".still-chart");
let drawn = null;
box.setAttribute("aria-label", props.spoken[language]);

const draw = async (again = false) => {
  if (!visible() || (props.value === drawn && again !== true)) return;
  const text = props.value;
  if (!text && !drawn) return; // megabytes that a page without a figure does not need
  const plotly = await loadPlotly();
  if (!text) {
    plotly.purge(box);
  } else {
    const figure = JSON.parse(text);
    const layout = { ...figure.layout, ...frame() };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
      const own = layout[key];
      layout[key] = { ...axis(own.title?.text ?? ""), ...own, gridcolor: colour("--chart-grid"), linecolor: colour("--chart-grid") };
    }
    await plotly.react(box, figure.data, layout, options);
    box.dataset.traces = figure.data.length;
  }
  drawn = text;
};

// also catches the moment in which a folded part or another tab comes into sight
const timer = setInterval(() => (element.isConnected ? draw() : clearInterval(timer)), 400);
watch("value", () => draw());
whenThemeChanges(() => drawn && draw(true));
draw();
