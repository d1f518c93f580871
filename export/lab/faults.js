"use strict";
// Faults that a file, or the runtime that runs it, may have. Each takes the module's layers and gives {layers, isTf32, what}
// or, where a network has no place for it, {why}.
const faults = (() => {
  const { nextUp, float16, random } = float32;

  function changed(layers, index, change) {
    return layers.map((layer, i) => (i === index ? { ...layer, ...change(layer) } : layer));
  }

  function indexOf(layers, op) {
    return layers.findIndex((layer) => layer.op === op);
  }

  // One weight, other than 0, of the linear layer at `place` among them.
  function oneWeight(change, { layers, place, seed }) {
    const linear = layers.flatMap((layer, i) => (layer.op === "linear" ? [i] : []));
    if (!linear.length) return { why: "the network has no linear" };
    const index = linear[Math.min(place, linear.length - 1)];
    const { weight, inputs, path } = layers[index], draw = random(seed);
    const used = Array.from(weight.keys()).filter((i) => weight[i] !== 0);
    if (!used.length) return { why: `all weights of '${path}' are 0` };
    const at = used[Math.floor(draw() * used.length)];
    const wrong = weight.slice();
    wrong[at] = change(weight[at]);
    const where = `weight [${Math.floor(at / inputs)}, ${at % inputs}] of '${path}'`;
    return { layers: changed(layers, index, () => ({ weight: wrong })), what: `${where}: ${ports.short(wrong[at])} for ${ports.short(weight[at])}` };
  }

  function slope({ layers }) {
    const index = indexOf(layers, "leaky_relu");
    if (index < 0) return { why: "the network has no leaky_relu" };
    const right = layers[index].slope, wrong = Math.fround(right * 1.1);
    const what = `slope of '${layers[index].path}': ${ports.short(wrong)} for ${ports.short(right)}`;
    return { layers: changed(layers, index, () => ({ slope: wrong })), what };
  }

  // The network's own Dropout; one with p = 0.5 in front of the last linear, where the network has none.
  function dropout({ layers, dropped, seed }) {
    const last = layers.findLastIndex((layer) => layer.op === "linear");
    const [own] = dropped;
    if (!own && last < 0) return { why: "the network has neither a dropout nor a linear" };
    const { at, p, path } = own ?? { at: last, p: 0.5, path: "added" };
    const live = { op: "dropout", path, p, seed };
    return { layers: [...layers.slice(0, at), live, ...layers.slice(at)], what: `dropout '${path}' with p = ${p} draws at every call` };
  }

  function products({ layers }) {
    if (indexOf(layers, "linear") < 0) return { why: "the network has no linear" };
    return { layers, isTf32: true, what: "the file is right; the runtime rounds the factors of every product to TF32" };
  }

  function normaliser({ layers }) {
    const kept = layers.filter(({ block }) => block !== "standardize");
    if (kept.length === layers.length) return { why: "the network has no standardize" };
    return { layers: kept, what: "the file takes rows as if they were standardized already" };
  }

  function halves({ layers }) {
    if (indexOf(layers, "linear") < 0) return { why: "the network has no linear" };
    const rounded = layers.map((layer) => (layer.op === "linear" ? { ...layer, weight: Float32Array.from(layer.weight, float16) } : layer));
    return { layers: rounded, what: "every weight of the file is rounded to float16" };
  }

  const PLANTED = {
    none: ["no fault", ({ layers }) => ({ layers, what: "the file is the module" })],
    ulp: ["one weight by 1 ulp", (given) => oneWeight(nextUp, given)],
    relative: ["one weight by 0.1 %", (given) => oneWeight((w) => Math.fround(w * 1.001), given)],
    slope: ["a slope a tenth too large", slope],
    float16: ["weights rounded to float16", halves],
    tf32: ["products rounded to TF32", products],
    dropout: ["a Dropout left active", dropout],
    normaliser: ["the normaliser left out", normaliser],
  };

  // `given` is {layers, dropped, place, seed}; `dropped` are the module's Dropouts, each in front of the layer `at`.
  function plant(name, given) {
    return { isTf32: false, ...PLANTED[name][1](given) };
  }

  return { names: Object.fromEntries(Object.entries(PLANTED).map(([name, [words]]) => [name, words])), plant };
})();
