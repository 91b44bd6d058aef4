// Turns as text nodes: what a model writes is never markup. Only what changed is touched, so reading is not disturbed.
const box = element.querySelector(".talk");
const NEAR_END = 48;

const draw = () => {
  const turns = JSON.parse(props.value || "[]");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END;
  turns.forEach(({ role, content }, index) => {
    const node = box.children[index] ?? box.appendChild(document.createElement("div"));
    const mine = role === "user";
    node.className = mine ? "turn user" : "turn bot";
    node.setAttribute("data-testid", mine ? "user" : "bot");
    if (node.textContent !== content) node.textContent = content;
  });
  while (box.children.length > turns.length) box.lastElementChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
};

watch("value", draw);
draw();
