// What every page of ours has. Everything that comes from a run reaches it as text, never as markup.
const content = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, name = "", text = "") => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== "") node.textContent = text;
  return node;
};

// ---- light and dark -------------------------------------------------------------------------------------------
const root = document.documentElement;
const wide = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wide.matches);
const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
$("theme").onclick = () => { root.dataset.theme = isDark() ? "light" : "dark"; drawAll(); };
wide.addEventListener("change", () => drawAll());
$("print").onclick = () => print();
let before;
addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; drawAll(); fitPaper(); });
addEventListener("afterprint", () => {
  if (before) root.dataset.theme = before; else delete root.dataset.theme;
  drawAll();
});
