// What both charts share; each gr.HTML runs this text followed by its own script, in a scope of its own.
const loadPlotly = () => {
  // one build for the whole page, fetched when the first chart is drawn
  window.studioPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(props.plotly_path, document.baseURI);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly.min.js cannot be loaded"));
    document.head.append(script);
  });
  return window.studioPlotly;
};
const language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const visible = () => !document.hidden && element.offsetParent !== null;
const axis = (title, more = {}) => ({
  title: { text: title, font: { size: 12 }, standoff: 6 },
  gridcolor: colour("--chart-grid"),
  linecolor: colour("--chart-grid"),
  zeroline: false,
  automargin: true,
  ...more,
});
const frame = () => ({
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { color: colour("--body-text-color"), size: 12, family: getComputedStyle(element).fontFamily },
  hoverlabel: { bgcolor: colour("--background-fill-primary"), font: { color: colour("--body-text-color") } },
});
const options = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const whenThemeChanges = (redraw) =>
  new MutationObserver(redraw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
