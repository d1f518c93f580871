"use strict";
// Four checks of a file beside its module. Each says whether it finds a fault, and by which numbers.
const checks = (() => {
  const { bits } = float32;
  const count = (number) => number.toLocaleString("en-US");

  // Three digits: 0.985, 136, 6.81e-6.
  function size(number) {
    if (number === 0 || !Number.isFinite(number)) return String(number);
    return number < 1e-3 || number >= 1e5 ? number.toExponential(2) : String(Number(number.toPrecision(3)));
  }

  // The largest of what `measure` makes of each pair; NaN counts as infinite, where one side is not a number.
  function largest(file, module, measure) {
    let most = 0, at = 0;
    for (let i = 0; i < file.length; i++) {
      const found = measure(file[i], module[i]);
      const value = Number.isNaN(found) ? Infinity : found;
      if (value > most) [most, at] = [value, i];
    }
    return { most, at };
  }

  const apart = (file, module) => Math.abs(file - module);

  // numpy.allclose and torch.allclose by default: |file - module| ≤ 1e-8 + 1e-5·|module|.
  function allclose(file, module) {
    const { most, at } = largest(file, module, (a, b) => (a === b ? 0 : apart(a, b) / (1e-8 + 1e-5 * Math.abs(b))));
    const allowed = 1e-8 + 1e-5 * Math.abs(module[at]);
    return { finds: most > 1, share: most, numbers: `of the limit at worst: ${size(apart(file[at], module[at]))} where ${size(allowed)} is allowed` };
  }

  // torch.onnx.export(verify=True): warns from a difference of 5e-3 on, or a relative one of 1e-1.
  function torchOnnx(file, module) {
    const absolute = largest(file, module, apart).most;
    const relative = largest(file, module, (a, b) => apart(a, b) / (Math.abs(b) + 1e-7)).most;
    const share = Math.max(absolute / 5e-3, relative / 1e-1);
    return { finds: share >= 1, share, numbers: `of the limit at worst: ${size(absolute)} where 5e-3 is allowed, relatively ${size(relative)} where 1e-1 is` };
  }

  // Polygraphy by default: each value within 1e-5, absolutely or relatively.
  function polygraphy(file, module) {
    const { most, at } = largest(file, module, (a, b) => Math.min(apart(a, b), apart(a, b) / (Math.abs(b) || 2e-16)) / 1e-5);
    return { finds: most > 1, share: most, numbers: `of the limit at worst: ${size(apart(file[at], module[at]))} where ${size(1e-5 * Math.max(1, Math.abs(module[at])))} is allowed` };
  }

  // Every operator of the file must be one of the module's, in its place.
  function structure(file, module) {
    const index = Array.from({ length: Math.max(file.length, module.length) }, (_, i) => i).find((i) => file[i]?.op !== module[i]?.op);
    if (index === undefined) return { name: "structure", finds: false, numbers: `${file.length} operators, those of the module` };
    const [have, need] = [file[index], module[index]].map((layer) => (layer ? `${layer.op} '${layer.path}'` : "its end"));
    return { name: "structure", finds: true, numbers: `the file has ${have} where the module has ${need}` };
  }

  // Every weight and option must have the module's bits.
  function constants(file, module) {
    let total = 0, wrong = 0, first = "";
    file.forEach((layer, index) => {
      const right = Object.fromEntries(networks.constants(module[index]));
      for (const [name, values] of networks.constants(layer)) {
        values.forEach((value, i) => {
          total++;
          if (bits(value) === bits(right[name][i])) return;
          first ||= `${name} of '${layer.path}'`;
          wrong++;
        });
      }
    });
    const numbers = wrong ? `${count(wrong)} of ${count(total)} differ, first in ${first}` : `${count(total)} weights and options, bit for bit`;
    return { name: "constants", finds: wrong > 0, numbers };
  }

  // x = 0 must give the bias, and 2^k at one input that weight times 2^k plus the bias, rounded once; for k = 0 and 40.
  function probes(file, module, how) {
    let total = 0, wrong = 0, first = "";
    file.forEach((layer, index) => {
      if (layer.op !== "linear") return;
      const { weight, bias, inputs, outputs, path } = module[index];
      const expect = (results, exact, probe) => results.forEach((value, out) => {
        const right = Math.fround(exact(out) + (bias ? bias[out] : 0));
        if (right !== 0 && Math.abs(right) < float32.ETA) return;
        total++;
        if (value === right) return;
        first ||= `'${path}' at x = ${probe}: output ${out} is ${ports.short(value)} and must be ${ports.short(right)}`;
        wrong++;
      });
      expect(networks.step(layer, new Float32Array(inputs), 1, how), () => 0, "0");
      for (const power of [0, 40]) {
        for (let i = 0; i < inputs; i++) {
          const x = new Float32Array(inputs);
          x[i] = 2 ** power;
          expect(networks.step(layer, x, 1, how), (out) => x[i] * weight[out * inputs + i], `2^${power} at input ${i}`);
        }
      }
    });
    const numbers = wrong ? `${count(wrong)} of ${count(total)} results are wrong, first ${first}` : `${count(total)} results, every bit right`;
    return { name: "exact probes", finds: wrong > 0, numbers };
  }

  // Each layer, computed exactly on the input that the file's layer had; `values` are those of the run.
  function layerBounds(module, values, rows, limits) {
    const layers = module.map((layer, index) => {
      const { exact, radius } = networks.bounded(layer, values[index], rows, limits);
      let share = 0, error = 0, bound = 0, beyond = 0;
      values[index + 1].forEach((value, i) => {
        const off = Math.abs(value - exact[i]);
        const part = off === 0 || radius[i] === Infinity ? 0 : Number.isNaN(off) ? Infinity : off / radius[i];
        if (part > 1) beyond++;
        if (part > share) [share, error, bound] = [part, off, radius[i]];
      });
      return { path: layer.path, op: layer.op, share, error, bound, beyond, values: values[index + 1].length };
    });
    const total = layers.reduce((sum, layer) => sum + layer.values, 0);
    const worst = layers.reduce((most, layer) => (layer.share > most.share ? layer : most), { share: 0 });
    const beyond = layers.reduce((sum, layer) => sum + layer.beyond, 0);
    const where = worst.path === undefined ? "every value is exact" : `${size(worst.share)} of it at worst, in ${worst.op} '${worst.path}'`;
    const numbers = `${beyond ? `${count(beyond)} of ${count(total)} values are beyond their bound` : `${count(total)} values within their bound`}; ${where}`;
    return { name: "layer bounds", finds: beyond > 0, numbers, layers, share: worst.share };
  }

  // As `mlpx verify` asks: is the file the module, does the runtime use its weights, is every layer right?
  function mlpx(file, module, values, rows, how, limits) {
    const first = structure(file, module);
    if (first.finds) return { finds: true, parts: [first], layers: [], share: Infinity };
    const bounds = layerBounds(module, values, rows, limits);
    const parts = [first, constants(file, module), probes(file, module, how), bounds];
    return { finds: parts.some((part) => part.finds), parts, layers: bounds.layers, share: bounds.share };
  }

  return { allclose, torchOnnx, polygraphy, mlpx, size };
})();
