"use strict";
// Networks of this page: made of blocks with weights drawn from a seed, or read from the record of a file. Each is
// {features, layers, dropped, ranges}: `dropped` are the Dropouts {path, p, at}, each in front of the layer `at`.
const making = (() => {
  const { random, normal } = float32;

  // The blocks that a network may be made of: what their number is, its default, and the lowest and the highest one.
  const KINDS = {
    linear: ["outputs", 16, 1, 64],
    standardize: null,
    relu: null,
    leaky_relu: ["slope", 0.01, -2, 2],
    sigmoid: null,
    tanh: null,
    elu: ["alpha", 1, 0, 4],
    silu: null,
    clip: ["limit", 5, 0.01, 100],
    dropout: ["p", 0.3, 0, 0.9],
  };
  const DEFAULT = [
    { kind: "standardize" }, { kind: "linear", number: 16 }, { kind: "leaky_relu", number: 0.01 }, { kind: "dropout", number: 0.3 },
    { kind: "linear", number: 16 }, { kind: "relu" }, { kind: "linear", number: 3 },
  ];

  // The layers of one block; weights are drawn as torch.nn.Linear draws them, from ±1/√inputs.
  function layersOf({ kind, number }, path, inputs, draw, drawNormal) {
    if (kind === "linear") {
      const reach = 1 / Math.sqrt(inputs), drawn = (length) => Float32Array.from({ length }, () => reach * (2 * draw() - 1));
      return [{ op: "linear", path, inputs, outputs: number, weight: drawn(inputs * number), bias: drawn(number) }];
    }
    if (kind === "standardize") {
      const mean = Float32Array.from({ length: inputs }, () => 2 * drawNormal());
      const std = Float32Array.from({ length: inputs }, () => 0.5 + 1.5 * draw());
      return [{ op: "sub", path: `${path}/sub`, value: mean, block: kind }, { op: "div", path: `${path}/div`, value: std, block: kind }];
    }
    if (kind === "leaky_relu") return [{ op: kind, path, slope: Math.fround(number) }];
    if (kind === "elu") return [{ op: kind, path, alpha: Math.fround(number) }];
    if (kind === "clip") return [{ op: kind, path, min: Math.fround(-number), max: Math.fround(number) }];
    return [{ op: kind, path }];
  }

  function ofBlocks(features, blocks, seed) {
    const draw = random(seed), drawNormal = normal(seed + 1), layers = [], dropped = [];
    let width = features;
    blocks.forEach((block, index) => {
      if (block.kind === "dropout") return void dropped.push({ path: String(index), p: block.number, at: layers.length });
      layers.push(...layersOf(block, String(index), width, draw, drawNormal));
      if (block.kind === "linear") width = block.number;
    });
    return { features, layers, dropped, ranges: null };
  }

  function numbers(base64) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }

  // The network of a file's record; its arrays are float32, in base64.
  function ofRecord({ features, layers, ranges }) {
    const arrays = ["weight", "bias", "value"];
    const read = layers.map((layer) => Object.fromEntries(Object.entries(layer).map(([key, value]) => [key, arrays.includes(key) && value ? numbers(value) : value])));
    return { features, layers: read, dropped: [], ranges };
  }

  // Rows over the declared ranges; else normal, by the mean and std of a standardize that comes first.
  function rows({ features, layers, ranges }, count, seed) {
    const draw = random(seed), drawNormal = normal(seed);
    const standardized = layers[0]?.block === "standardize" && layers[1]?.block === "standardize";
    const [mean, std] = standardized ? [layers[0].value, layers[1].value] : [[0], [1]];
    const at = (values, feature) => values[values.length === 1 ? 0 : feature];
    return Float32Array.from({ length: count * features }, (_, i) => {
      const feature = i % features;
      if (ranges) return ranges[feature][0] + draw() * (ranges[feature][1] - ranges[feature][0]);
      return at(mean, feature) + at(std, feature) * drawNormal();
    });
  }

  // One row of Polygraphy's: uniform from 0 to 1.
  function uniformRow({ features }, seed) {
    return Float32Array.from({ length: features }, random(seed));
  }

  return { KINDS, DEFAULT, ofBlocks, ofRecord, rows, uniformRow };
})();
