// Elements are made here and nowhere from markup: whatever a prompt holds stays text.

const find = (id) => document.getElementById(id);

/** An element; `properties` are set as such, those with a dash as attributes, undefined ones not at all. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Fills a select with {value, text} and keeps what was chosen. */
function fill(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(({ value, text }) => make("option", { value, textContent: text })));
  select.value = chosen;
}

const data = JSON.parse(find("data").textContent);

/** The address of a picture: size is "full" or "small", column a method's or an input's folder. */
function address(group, size, column, sample) {
  const parts = [data.files, group.key, size, column, group.ids[sample] + ".webp"];
  return parts.map(encodeURIComponent).join("/");
}

/** A score as the tables print it. */
function printed(value) {
  if (value === null || value === undefined) return "–";
  const text = value.toFixed(data.digits);
  return (Number(text) === 0 ? (0).toFixed(data.digits) : text).replace("-", "−");
}

function signed(value) {
  return value > 0 ? "+" + printed(value) : printed(value);
}
