"use strict";
// float32 numbers in a page: their neighbours, narrower formats, and numbers drawn from a seed.
const float32 = (() => {
  const cell = new DataView(new ArrayBuffer(4));
  const U = 2 ** -24; // the largest relative error of one rounding
  const ETA = 2 ** -126; // below it a result may be flushed to zero

  function bits(x) {
    cell.setFloat32(0, x);
    return cell.getUint32(0);
  }

  function fromBits(pattern) {
    cell.setUint32(0, pattern);
    return cell.getFloat32(0);
  }

  // The next larger float32 number.
  function nextUp(x) {
    if (x === 0) return 2 ** -149;
    return fromBits(x > 0 ? bits(x) + 1 : bits(x) - 1);
  }

  // Rounded to the 11 significant bits of TF32, ties to even.
  function tf32(x) {
    const pattern = bits(x);
    return Number.isFinite(x) ? fromBits((pattern + 0xfff + ((pattern >>> 13) & 1)) & 0xffffe000) : x;
  }

  // Rounded to the 11 significant bits and the range of float16, ties to even.
  function float16(x) {
    if (!Number.isFinite(x) || x === 0) return x;
    const exponent = Math.max(((bits(x) >>> 23) & 255) - 127, -14);
    const step = 2 ** (exponent - 10);
    const whole = Math.floor(x / step), rest = x / step - whole;
    const rounded = (rest > 0.5 || (rest === 0.5 && whole % 2 !== 0) ? whole + 1 : whole) * step;
    return Math.abs(rounded) > 65504 ? Math.sign(x) * Infinity : rounded;
  }

  // γ_k, the relative error of k roundings in a row.
  function gamma(k) {
    return (k * U) / (1 - k * U);
  }

  // A function that draws numbers uniformly from [0, 1): mulberry32.
  function random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // A function that draws standard normal numbers, by Box and Muller.
  function normal(seed) {
    const draw = random(seed);
    return () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
  }

  return { U, ETA, bits, nextUp, tf32, float16, gamma, random, normal };
})();
