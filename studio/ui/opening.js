
// Runs before gradio reads its configuration, which stands in the page above. There is none where a password is asked.
{
  const config = window.gradio_config;
  if (config?.components) {
    const asked = new URL(location).searchParams.get("tab");
    const tabs = config.components.find((each) => each.props.elem_id === "tabs");
    const named = config.components.some((each) => each.type === "tabitem" && each.props.id === asked);
    if (named) tabs.props.selected = asked;
    // gradio (6.31) looks through every event for each component, and through Svelte's proxies, which takes ten times as
    // long. Svelte leaves alone what is not a plain array.
    class Still extends Array {}
    Object.setPrototypeOf(config.dependencies, Still.prototype);
  }
}
