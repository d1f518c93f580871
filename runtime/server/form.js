"use strict";
// A model's input as a form: sliders and numbers, a picture to draw on, or a pasted row.
const form = (() => {
  const { make, width, limits, whole, optionally, vocabulary, worded, text, short } = ports;
  const MOST_FIELDS = 64;

  // A step that makes round numbers: about a 200th of the range.
  function stepOf(low, high) {
    const rough = (high - low) / 200 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  }

  function rounded(value, low, high) {
    const step = stepOf(low, high);
    const digits = Math.min(20, Math.max(0, -Math.floor(Math.log10(step))));
    return Math.min(high, Math.max(low, Number((Math.round(value / step) * step).toFixed(digits))));
  }

  // Where a value starts: in the middle of its range, or the first of its words.
  function middle(port, index) {
    const range = limits(port, index);
    if (!range) return 0;
    const at = (range[0] + range[1]) / 2;
    return vocabulary(port, index) ? range[0] : whole(port, index) ? Math.floor(at) : rounded(at, ...range);
  }

  // Rows and columns of a picture: from the row's own shape, or from names that end in _ROW_COLUMN and fill a grid.
  function picture(port) {
    const sizes = port.shape.slice(1).map(Number).filter((size) => size !== 1);
    if (port.ranges || !port.range || width(port) < 9 || width(port) > 4096) return null;
    if (sizes.length === 2 && sizes.every((size) => size > 2)) return sizes;
    const places = (port.features ?? []).map((name) => /(\d+)[_x,](\d+)\D?$/.exec(name)?.slice(1).map(Number));
    const columns = Math.max(0, ...places.map((place) => (place ? place[1] + 1 : 0)));
    const grid = columns > 2 && places.every((place, i) => place && place[0] * columns + place[1] === i);
    return grid ? [places.length / columns, columns] : null;
  }

  function field(port, index, values, changed) {
    const name = port.features?.[index] ?? `${port.name}[${index}]`;
    const unit = port.units?.[index] ?? null;
    const range = limits(port, index);
    const integer = whole(port, index);
    const allowed = integer && range ? { min: range[0], max: range[1] } : {};
    const optional = optionally(port, index);
    const number = make("input", { type: "number", ...allowed, step: integer ? 1 : "any", placeholder: optional ? "missing" : "", data: { "aria-label": unit ? `${name}, ${unit}` : name } });
    const slider = range && range[1] > range[0] ? make("input", { type: "range", min: range[0], max: range[1], step: integer ? 1 : "any" }) : null;
    slider?.setAttribute("aria-label", name);
    function place() {
      if (!slider) return;
      slider.classList.toggle("missing", Number.isNaN(values[index]));
      slider.value = Number.isNaN(values[index]) ? middle(port, index) : values[index];
    }
    function show() {
      number.value = Number.isNaN(values[index]) ? "" : text(port, index, values[index]);
      place();
    }
    number.addEventListener("input", () => {
      const empty = number.value === "" && !number.validity.badInput;
      const wrong = (empty && !optional) || !number.validity.valid;
      number.setAttribute("aria-invalid", String(wrong));
      if (wrong) return;
      values[index] = empty ? NaN : Number(number.value);
      place();
      changed();
    });
    number.addEventListener("change", () => {
      number.setAttribute("aria-invalid", "false");
      show();
    });
    slider?.addEventListener("input", () => {
      values[index] = integer ? Number(slider.value) : rounded(Number(slider.value), ...range);
      show();
      changed();
    });
    const words = make("span", { className: "name" }, name);
    const about = [unit, range?.map((end) => text(port, index, end)).join(" to ")].filter(Boolean).join(", ");
    if (about) words.append(" ", make("span", { className: "soft" }, about));
    return { element: make("div", { className: slider ? "field" : "field plain" }, words, slider, number), show };
  }

  // A category: a list of its words to choose from.
  function choice(port, index, values, changed) {
    const name = port.features?.[index] ?? `${port.name}[${index}]`;
    const words = vocabulary(port, index).map((word, code) => make("option", { value: String(code) }, word));
    const list = make("select", { data: { "aria-label": name } }, ...words);
    list.addEventListener("change", () => {
      values[index] = Number(list.value);
      changed();
    });
    function show() {
      list.value = String(values[index]);
    }
    return { element: make("div", { className: "field words" }, make("span", { className: "name" }, name), list), show };
  }

  function fields(port, values, changed) {
    const all = Array.from(values, (_, index) => (vocabulary(port, index) ? choice : field)(port, index, values, changed));
    const element = make("div", { className: "fields" }, ...all.map((one) => one.element));
    return { element, show: () => all.forEach((one) => one.show()) };
  }

  // A picture to draw on, with a pointer, or with the arrow keys, space and Delete.
  function canvas(port, [rows, columns], values, changed) {
    const [low, high] = port.range;
    const size = Math.max(4, Math.floor(320 / Math.max(rows, columns)));
    const element = make("canvas", { width: columns * size, height: rows * size, tabIndex: 0, className: "drawing" });
    element.setAttribute("role", "application");
    const pen = element.getContext("2d");
    let at = [0, 0], erasing = false, focused = false;
    function show() {
      for (let i = 0; i < values.length; i++) {
        const share = Math.min(1, Math.max(0, (values[i] - low) / (high - low)));
        pen.fillStyle = `rgb(${Array(3).fill(Math.round(255 * share)).join()})`;
        pen.fillRect((i % columns) * size, Math.floor(i / columns) * size, size, size);
      }
      pen.strokeStyle = "#2f81f7";
      pen.lineWidth = Math.max(2, size / 12);
      if (focused) pen.strokeRect(at[1] * size + 1, at[0] * size + 1, size - 2, size - 2);
      const value = short(values[at[0] * columns + at[1]]);
      element.setAttribute("aria-label", `${port.name}: row ${at[0]}, column ${at[1]} is ${value}. Arrow keys move, space draws, Delete erases`);
    }
    function set(row, column, share) {
      if (row < 0 || column < 0 || row >= rows || column >= columns) return;
      const i = row * columns + column;
      values[i] = erasing ? low : Math.max(values[i], low + share * (high - low));
    }
    function draw(row, column, soft) {
      set(row, column, 1);
      for (const [r, c] of soft && !erasing ? [[0, 1], [1, 0], [0, -1], [-1, 0]] : []) set(row + r, column + c, 0.3);
      show();
      changed();
    }
    function follow(event) {
      const box = element.getBoundingClientRect();
      at = [((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * columns];
      at = at.map((place, axis) => Math.min([rows, columns][axis] - 1, Math.max(0, Math.floor(place))));
      draw(...at, true);
    }
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      follow(event);
    });
    element.addEventListener("pointermove", (event) => event.buttons && follow(event));
    element.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (move) at = [(at[0] + move[0] + rows) % rows, (at[1] + move[1] + columns) % columns];
      else if (event.key === " ") draw(...at, false);
      else if (["Delete", "Backspace"].includes(event.key)) {
        values[at[0] * columns + at[1]] = low;
        changed();
      } else return;
      event.preventDefault();
      show();
    });
    for (const type of ["focus", "blur"]) {
      element.addEventListener(type, () => {
        focused = type === "focus";
        show();
      });
    }
    const eraser = make("button", { type: "button" }, "Erase");
    eraser.setAttribute("aria-pressed", "false");
    eraser.addEventListener("click", () => {
      erasing = !erasing;
      eraser.setAttribute("aria-pressed", String(erasing));
    });
    const clear = make("button", { type: "button" }, "Clear");
    clear.addEventListener("click", () => {
      values.fill(low);
      show();
      changed();
    });
    const hint = make("span", { className: "soft" }, `draw here; ${short(low)} is black, ${short(high)} is white`);
    return { element: make("div", {}, element, make("p", { className: "tools" }, clear, eraser, hint)), show };
  }

  // The numbers of a pasted row: JSON, or separated by anything that is no part of a number. Throws what is wrong.
  function parsed(given, port, count) {
    const words = given.replace(/^[\s[\]]+|[\s[\]]+$/g, "").split(/[\s,;]+/).filter(Boolean);
    const missing = (word, i) => optionally(port, i) && /^(null|nan)$/i.test(word);
    const values = words.map((word, i) => (missing(word, i) ? NaN : Number(word)));
    const wrong = words.find((word, i) => !missing(word, i) && !Number.isFinite(Math.fround(values[i])));
    if (wrong !== undefined) throw new Error(`'${wrong}' is not a float32 number`);
    const broken = words.find((word, i) => whole(port, i) && !Number.isSafeInteger(values[i]));
    if (broken !== undefined) throw new Error(`'${broken}' is not a whole number`);
    if (values.length !== count) throw new Error(`${port.name} takes ${count} numbers, and ${values.length} were pasted`);
    return values;
  }

  function pasting(port, values, use) {
    const count = values.length;
    const things = `${count} ${worded(port) ? "code" : "number"}${count === 1 ? "" : "s"}`;
    const area = make("textarea", { rows: 3, spellcheck: false, placeholder: things, data: { "aria-label": `a row of ${port.name}` } });
    const button = make("button", { type: "button" }, "Use this row");
    const said = make("span", { className: "bad", role: "alert" });
    button.addEventListener("click", () => {
      said.textContent = "";
      try {
        use(parsed(area.value, port, count));
      } catch (error) {
        said.textContent = error.message;
      }
    });
    const element = make("details", { open: false }, make("summary", {}, `Row of ${things}: view, copy or paste`), area, make("p", { className: "tools" }, button, said));
    element.addEventListener("toggle", () => element.open && show());
    function show() {
      if (document.activeElement !== area) area.value = JSON.stringify(Array.from(values, (v, i) => Number(text(port, i, v)))).replaceAll(",", ", "); // lines end between numbers
    }
    return { element, show };
  }

  // {element, values(), set(values)}; `changed` is called when a person changed a value.
  function input(port, changed) {
    const values = Array.from({ length: width(port) }, (_, i) => middle(port, i));
    const grid = picture(port);
    if (grid) values.fill(port.range[0]);
    const gaps = values.some((_, i) => optionally(port, i)) ? make("p", { className: "soft" }, `A value may be missing: leave its field empty, or write null in the row below.`) : null;
    const beyond = make("p", { className: "warn" });
    const paste = pasting(port, values, (given) => {
      set(given);
      changed();
    });
    function noticed() {
      const out = values.findIndex((value, i) => limits(port, i) && (value < limits(port, i)[0] || value > limits(port, i)[1]));
      const name = port.features?.[out] ?? `value ${out}`;
      beyond.textContent = out < 0 ? "" : `${name} is ${text(port, out, values[out])}, beyond its declared range ${limits(port, out).map((end) => text(port, out, end)).join(" to ")}.`;
    }
    function edited() {
      noticed();
      paste.show();
      changed();
    }
    const shown = grid ? canvas(port, grid, values, edited) : values.length <= MOST_FIELDS ? fields(port, values, edited) : null;
    if (!shown) paste.element.open = true;
    function set(given) {
      given.forEach((value, i) => (values[i] = value));
      shown?.show();
      paste.show();
      noticed();
    }
    set(values);
    const element = make("fieldset", { data: { "data-input": port.name } }, make("legend", {}, port.name), gaps, shown?.element ?? null, beyond, paste.element);
    return { element, values: () => values.slice(), set };
  }

  return { input };
})();
