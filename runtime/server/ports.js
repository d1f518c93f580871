"use strict";
// Inputs and outputs by the records that a model's file holds of them: a port is {name, shape, features?, units?, range?,
// ranges?, indices?, categories?, missing?, labels?, scores?, dtype?}, and a row is a list of its values.
const ports = (() => {
  function make(tag, properties = {}, ...children) {
    const { data, ...rest } = properties;
    const made = Object.assign(document.createElement(tag), rest);
    for (const [key, value] of Object.entries(data ?? {})) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  // Batch left out; a size that the file leaves open counts as 1.
  function width(port) {
    return port.shape.slice(1).reduce((product, size) => product * (Number(size) || 1), 1);
  }

  function limits(port, index) {
    return port.indices?.[index] ?? port.ranges?.[index] ?? port.range ?? null;
  }

  // Whether only whole numbers may stand there: indices into a table.
  function whole(port, index) {
    return port.dtype === "int64" || Boolean(port.indices?.[index]);
  }

  // Whether a value may be missing; it is NaN then, which JSON has as null.
  function optionally(port, index) {
    return Boolean(port.missing) && !whole(port, index);
  }

  // The words that a value of a row is the code of, or null.
  function vocabulary(port, index) {
    return port.categories?.[index]?.words ?? null;
  }

  // Whether a row may be sent as words.
  function worded(port) {
    return Boolean(port.categories?.length) && port.categories.every((category) => category !== null);
  }

  // A value's digits: all of a whole number, of others as many as float32 needs.
  function text(port, index, value) {
    return whole(port, index) ? String(value) : short(value);
  }

  // The fewest digits that give the same float32 number.
  function short(value) {
    if (!Number.isFinite(value)) return String(value);
    for (let digits = 1; digits < 9; digits++) {
      const text = Number(value.toPrecision(digits));
      if (Math.fround(text) === Math.fround(value)) return String(text);
    }
    return String(Number(value.toPrecision(9)));
  }

  return { make, width, limits, whole, optionally, vocabulary, worded, text, short };
})();
