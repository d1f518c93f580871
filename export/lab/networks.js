"use strict";
// A network as a list of layers {op, path, …}: run in float32, computed exactly layer by layer, and bounded by mlpx's rules.
// A linear has weight (outputs, inputs), bias or null, inputs and outputs; sub, div, mul and add a `value` of 1 or as many
// numbers as features; the functions have their options. Rows are one array after the other.
const networks = (() => {
  const { U, ETA, gamma, tf32, random } = float32;
  const SLACK = 1 + 2 ** -20; // for the float64 arithmetic of the reference and of the bound

  const LARGEST = 2 ** 128 - 2 ** 104; // of float32

  const FUNCTIONS = {
    relu: () => (x) => Math.max(0, x),
    leaky_relu: ({ slope }) => (x) => (x > 0 ? x : slope * x),
    sigmoid: () => (x) => 1 / (1 + Math.exp(-x)),
    tanh: () => Math.tanh,
    elu: ({ alpha }) => (x) => (x > 0 ? x : alpha * Math.expm1(x)),
    silu: () => (x) => x / (1 + Math.exp(-x)),
    clip: ({ min, max }) => (x) => Math.min(Math.max(x, min), max),
  };
  const WITH_CONSTANT = {
    sub: (x, value) => x - value,
    div: (x, value) => x / value,
    mul: (x, value) => x * value,
    add: (x, value) => x + value,
  };

  function valueAt(layer, feature) {
    return layer.value[layer.value.length === 1 ? 0 : feature];
  }

  // One feature of one row, as JavaScript computes it: in float64.
  function elementwise(layer) {
    const constant = WITH_CONSTANT[layer.op];
    if (constant) return (x, feature) => constant(x, valueAt(layer, feature));
    return FUNCTIONS[layer.op](layer);
  }

  // Products and sums, each rounded to float32; `order` is that of the sums: "sequence", or "four" partial sums.
  function product(layer, x, rows, { order, isTf32 }) {
    const { inputs, outputs, bias } = layer, y = new Float32Array(rows * outputs);
    const narrow = (values) => (isTf32 ? Float32Array.from(values, tf32) : values);
    const [left, weight] = [narrow(x), narrow(layer.weight)];
    const round = Math.fround, sums = new Float32Array(4);
    for (let row = 0; row < rows; row++) {
      for (let out = 0; out < outputs; out++) {
        const [a, b] = [row * inputs, out * inputs];
        sums.fill(0);
        if (order === "four") for (let i = 0; i < inputs; i++) sums[i & 3] += round(left[a + i] * weight[b + i]);
        else for (let i = 0; i < inputs; i++) sums[0] += round(left[a + i] * weight[b + i]);
        const sum = round(round(sums[0] + sums[1]) + round(sums[2] + sums[3]));
        y[row * outputs + out] = bias ? sum + bias[out] : sum; // an array of float32 rounds what it takes
      }
    }
    return y;
  }

  function dropout(layer, x) {
    const draw = random(layer.seed), factor = Math.fround(1 / (1 - layer.p));
    return Float32Array.from(x, (value) => (draw() < layer.p ? 0 : value * factor));
  }

  // One layer in float32, each operation rounded.
  function step(layer, x, rows, how) {
    if (layer.op === "linear") return product(layer, x, rows, how);
    if (layer.op === "dropout") return dropout(layer, x);
    const compute = elementwise(layer), size = x.length / rows;
    return Float32Array.from(x, (value, i) => compute(value, i % size));
  }

  // The values of the input and of every layer.
  function run(layers, x, rows, how) {
    const values = [x];
    for (const layer of layers) values.push(step(layer, values.at(-1), rows, how));
    return values;
  }

  // What the layer gives exactly, in float64, and how far a correct float32 result may be from it: docs/parity.md of mlpx.
  function bounded(layer, x, rows, limits) {
    if (layer.op === "linear") return boundedProduct(layer, x, rows);
    const compute = elementwise(layer), size = x.length / rows;
    const exact = Float64Array.from(x, (value, i) => compute(value, i % size));
    const radius = exact.map((y, i) => SLACK * ruleOf(layer, x[i], Math.abs(y), i % size, limits));
    return { exact, radius };
  }

  function boundedProduct({ inputs, outputs, weight, bias }, x, rows) {
    const exact = new Float64Array(rows * outputs), radius = new Float64Array(rows * outputs);
    const roundings = inputs + (bias ? 1 : 0);
    for (let row = 0; row < rows; row++) {
      for (let out = 0; out < outputs; out++) {
        let sum = bias ? bias[out] : 0, terms = Math.abs(sum), reach = 0;
        for (let i = 0; i < inputs; i++) {
          const [a, w] = [x[row * inputs + i], weight[out * inputs + i]];
          sum += a * w;
          terms += Math.abs(a * w);
          reach += Math.abs(a);
        }
        exact[row * outputs + out] = sum;
        const may = (1 + gamma(roundings)) * terms <= LARGEST; // else it may overflow, and has no bound
        radius[row * outputs + out] = may ? SLACK * (gamma(roundings) * terms + (roundings + 1) * ETA * (1 + reach)) : Infinity;
      }
    }
    return { exact, radius };
  }

  // `size` is |y|; `limits` are mlpx's constants [a, r, m] of functions: u·(a + r·|y| + m·|x|).
  function ruleOf(layer, x, size, feature, limits) {
    const { op } = layer;
    if (op === "relu" || op === "clip") return 0;
    if (op === "leaky_relu") return x > 0 ? 0 : U * size + (1 + Math.abs(layer.slope)) * ETA;
    if (op === "sub" || op === "add") return U * size + 3 * ETA;
    const [a, r, m] = limits[op] ?? [0, 0, 0];
    if (op === "elu") {
      const alpha = Math.abs(layer.alpha);
      return x > 0 ? 0 : U * (a * alpha + r * size) + 2 * (1 + alpha) * ETA;
    }
    if (op in FUNCTIONS) return U * (a + r * size + m * Math.abs(x)) + 4 * ETA;
    const value = Math.abs(valueAt(layer, feature));
    if (op === "mul") return U * size + ETA * (1 + Math.abs(x) + value);
    return gamma(3) * size + ETA * (1 + Math.abs(x) + 1 / Math.max(value, ETA)); // div: perhaps by a rounded reciprocal
  }

  // The constants of a layer, by name.
  function constants(layer) {
    const { weight, bias, value } = layer, given = { weight, bias, value };
    for (const option of ["slope", "alpha", "min", "max"]) if (option in layer) given[option] = [layer[option]];
    return Object.entries(given).filter(([, values]) => values);
  }

  function parameters(layers) {
    return layers.reduce((sum, layer) => sum + constants(layer).reduce((all, [, values]) => all + values.length, 0), 0);
  }

  return { run, step, bounded, constants, parameters };
})();
