"use strict";
// A model's output as bars, with what a classifier's largest score says.
const bars = (() => {
  const { make, width, limits } = ports;
  const MOST_BARS = 256;
  const highest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity); // spreading very wide rows overflows

  // What the largest score of a classifier says, as `mlpx predict` reads it.
  function decided(port, values) {
    if (!port.labels || !["logits", "probabilities"].includes(port.scores)) return "";
    let scores = values;
    if (values.length === 1) scores = port.scores === "logits" ? [0, values[0]] : [1 - values[0], values[0]];
    if (port.scores === "logits") {
      const top = highest(scores);
      const powers = scores.map((score) => Math.exp(score - top));
      const sum = powers.reduce((a, b) => a + b, 0);
      scores = powers.map((power) => power / sum);
    }
    const best = scores.indexOf(highest(scores));
    return `${port.labels[best]}, probability ${scores[best].toFixed(4)}`;
  }

  // {element, show(values)} of an output: a bar for each value, from zero, on the output's own range or the largest value so far.
  function output(port) {
    const count = Math.min(width(port), MOST_BARS);
    const named = port.labels?.length === width(port) ? port.labels : port.features;
    const rows = Array.from({ length: count }, (_, i) => {
      const bar = make("span", { className: "bar" });
      const value = make("data", { className: "value" });
      const name = named?.[i] ?? (port.labels && width(port) === 1 ? `score of ${port.labels[1]}` : width(port) > 1 ? `[${i}]` : port.name);
      const track = make("span", { className: "track", data: { "aria-hidden": "true" } }, bar);
      const element = make("li", {}, make("span", { className: "name" }, name), track, value);
      return { element, bar, value, unit: port.units?.[i] ?? "" };
    });
    const verdict = make("p", { className: "decided", data: { "aria-live": "polite" } });
    const more = width(port) > count ? make("p", { className: "soft" }, `The first ${count} of ${width(port)} values.`) : null;
    const legend = make("h3", {}, port.name);
    const element = make("section", { data: { "data-output": port.name } }, legend, verdict, make("ul", { className: "bars" }, ...rows.map((row) => row.element)), more);
    let largest = 1e-30; // so far: bars of different rows compare
    function show(values) {
      const held = Array.from(values);
      verdict.textContent = decided(port, held);
      largest = Math.max(highest(held.map(Math.abs).filter(Number.isFinite)), largest);
      const best = held.indexOf(highest(held));
      rows.forEach((row, i) => {
        const own = limits(port, i) ?? (port.scores === "probabilities" ? [0, 1] : null);
        const low = Math.min(0, own ? own[0] : held.some((v) => v < 0) ? -largest : 0, held[i]);
        const high = Math.max(0, own ? own[1] : largest, held[i]);
        const [from, to] = [Math.min(0, held[i]), Math.max(0, held[i])].map((v) => (100 * (v - low)) / (high - low || 1));
        row.bar.style.left = `${from}%`;
        row.bar.style.width = `${Math.max(0, to - from)}%`;
        row.value.value = String(held[i]);
        row.value.textContent = `${Number.isFinite(held[i]) ? Number(held[i].toPrecision(5)) : held[i]}${row.unit ? ` ${row.unit}` : ""}`;
        row.element.classList.toggle("best", verdict.textContent !== "" && held.length > 1 && i === best);
      });
    }
    return { element, show };
  }

  return { output };
})();
