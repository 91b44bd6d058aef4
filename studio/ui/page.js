// Runs once when the page opens: the address follows the tab that the user chose, and the back button follows the address.
() => {
  const first = () => document.querySelector("[role=tab][data-tab-id]")?.dataset.tabId;
  const inAddress = () => new URL(location).searchParams.get("tab");
  document.addEventListener(
    "click",
    (event) => {
      // gradio also selects tabs by itself while it mounts; only the user's own click may change the address
      const tab = event.target.closest?.("[role=tab][data-tab-id]");
      if (!tab || !event.isTrusted || tab.dataset.tabId === inAddress()) return;
      const address = new URL(location);
      address.searchParams.set("tab", tab.dataset.tabId);
      history.pushState(null, "", address);
    },
    true,
  );
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-lang]");
    if (!link) return;
    event.preventDefault();
    const address = new URL(location); // keeps the tab and the run
    address.searchParams.set("lang", link.dataset.lang);
    location.assign(address);
  });
  addEventListener("popstate", () =>
    document.querySelector(`[role=tab][data-tab-id="${CSS.escape(inAddress() ?? first())}"]`)?.click(),
  );
}
