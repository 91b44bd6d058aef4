// Sample answers: all of them, or those of one step. The choice stays while new answers come in.
let step = ""; // "" is all of them

const show = () => {
  const choice = element.querySelector("select");
  if (!choice) return;
  if (![...choice.options].some((option) => option.value === step)) step = "";
  choice.value = step;
  for (const row of element.querySelectorAll("tr[data-step]")) row.hidden = step !== "" && row.dataset.step !== step;
  for (const button of element.querySelectorAll("button[data-by]"))
    button.disabled = !choice.options[choice.selectedIndex + Number(button.dataset.by)];
};
element.addEventListener("change", (event) => {
  if (!event.target.matches("select")) return;
  step = event.target.value;
  show();
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-by]");
  const choice = element.querySelector("select");
  if (!button || !choice) return;
  step = choice.options[choice.selectedIndex + Number(button.dataset.by)]?.value ?? step;
  show();
});
watch("value", () => requestAnimationFrame(show));
new MutationObserver(show).observe(element, { childList: true, subtree: true });
show();
