"use strict";
// The page: a network, a fault in it, and what four checks say.
const lab = (() => {
  const { make } = ports;
  const record = JSON.parse(document.getElementById("record").textContent);
  const view = (id) => document.getElementById(id);
  const CHECKS = { allclose: "allclose", torchOnnx: "torch.onnx", polygraphy: "Polygraphy", mlpx: "mlpx" };
  const MOST_BLOCKS = 12, LARGER = 2;
  const state = {
    features: 8, blocks: making.DEFAULT.map((block) => ({ ...block })), own: !record.network,
    fault: "ulp", place: 0, seed: 0, rows: 100, order: "four",
  };

  function network() {
    return state.own ? making.ofBlocks(state.features, state.blocks, state.seed) : making.ofRecord(record.network);
  }

  // What every check says of one fault; null where the network has no place for it.
  function judged(fault, made) {
    const planted = faults.plant(fault, { ...made, place: state.place, seed: state.seed });
    if (planted.why) return { why: planted.why };
    const how = { order: state.order, isTf32: planted.isTf32 }, right = { order: "sequence", isTf32: false };
    const rows = making.rows(made, state.rows, state.seed + 2), row = making.uniformRow(made, state.seed + 3);
    const values = networks.run(planted.layers, rows, state.rows, how);
    const module = networks.run(made.layers, rows, state.rows, right).at(-1), file = values.at(-1);
    const two = (file.length / state.rows) * Math.min(2, state.rows);
    const one = [planted, made].map(({ layers }, i) => networks.run(layers, row, 1, i ? right : how).at(-1));
    const found = {
      allclose: checks.allclose(file, module),
      torchOnnx: checks.torchOnnx(file.subarray(0, two), module.subarray(0, two)),
      polygraphy: checks.polygraphy(...one),
      mlpx: checks.mlpx(planted.layers, made.layers, values, state.rows, how, record.limits),
    };
    return { what: planted.what, found };
  }

  // A class and a word for what a check answers. Where it gives an alarm without a fault too, another one must be larger.
  function answer(fault, given, without) {
    if (fault === "none") return given.finds ? ["alarm", "false alarm"] : ["quiet", "quiet"];
    if (given.finds && without.finds && !(given.share > LARGER * without.share)) return ["alarm", "alarm, as without a fault"];
    return given.finds ? ["finds", "notices"] : ["misses", "misses"];
  }

  function showFound({ what, why, found }, right) {
    view("planted").textContent = why ? `This fault cannot be planted: ${why}.` : `Planted: ${what}.`;
    const cards = Object.entries(found ?? {}).map(([check, given]) => {
      const { share, numbers, parts } = given, [kind, word] = answer(state.fault, given, right.found[check]);
      const details = parts
        ? make("ul", {}, ...parts.map((part) => make("li", {}, make("strong", {}, part.finds ? "fault " : "right "), `${part.name}: ${part.numbers}`)))
        : make("p", { className: "soft" }, `${checks.size(share)} ${numbers}.`);
      return make("div", { className: `card ${kind}`, data: { "data-check": check } }, make("h3", {}, CHECKS[check]), make("p", {}, make("strong", {}, word)), details);
    });
    view("found").replaceChildren(...cards);
  }

  // Which of its questions found the fault, or the largest difference as a share of the limit.
  function reason({ finds, parts, share }) {
    return parts && finds ? `by ${parts.filter((part) => part.finds).map(({ name }) => name).join(", ")}` : checks.size(share);
  }

  function showAll(made, right) {
    const rows = Object.entries(faults.names).map(([fault, words]) => {
      const { why, found } = fault === "none" ? right : judged(fault, made);
      const cells = Object.entries(CHECKS).map(([check, name]) => {
        const data = { "data-check": name };
        if (why) return make("td", { className: "quiet", data }, make("small", {}, "not planted"));
        const [kind, word] = answer(fault, found[check], right.found[check]);
        return make("td", { className: kind, data }, make("strong", {}, word), make("small", {}, reason(found[check])));
      });
      return make("tr", { data: { "data-fault": fault } }, make("th", { scope: "row" }, words), ...cells);
    });
    view("all").tHead.replaceChildren(make("tr", {}, ...["fault", ...Object.values(CHECKS)].map((name) => make("th", { scope: "col" }, name))));
    view("all").tBodies[0].replaceChildren(...rows);
  }

  // Shares of the bound from 1e-3 to 1e6, on a log scale; the tick is the bound.
  function place(share) {
    return 100 * Math.min(1, Math.max(0, (Math.log10(Math.max(share, 1e-3)) + 3) / 9));
  }

  function showLayers({ found }) {
    const layers = found?.mlpx.layers ?? [];
    const rows = layers.map(({ path, op, share, error, bound, beyond }) => {
      const bar = make("span", { className: share > 1 ? "bar beyond" : "bar" }), tick = make("span", { className: "tick" });
      bar.style.width = `${share ? place(share) : 0}%`;
      tick.style.left = `${place(1)}%`;
      const track = make("span", { className: "track", data: { "aria-hidden": "true" } }, bar, tick);
      const words = share ? `error ${checks.size(error)}, bound ${checks.size(bound)}${beyond ? `; ${beyond.toLocaleString("en-US")} values beyond` : ""}` : "exact";
      return make("div", { className: "layer", data: { "data-layer": path } }, make("span", { className: "name" }, `${op} '${path}'`), track, make("data", { className: "value", value: String(share) }, share ? checks.size(share) : "0"), make("span", { className: "soft numbers" }, words));
    });
    const other = make("p", {}, "The file's operators are not the module's, so no layer is compared: the proof ends there.");
    view("layers").replaceChildren(...(rows.length || !found ? rows : [other]));
  }

  function update() {
    const made = network();
    const linear = made.layers.filter(({ op }) => op === "linear");
    const names = [made.features, ...made.layers.filter(({ op }) => op !== "div").map(({ op, outputs, block }) => (op === "linear" ? `linear ${outputs}` : (block ?? op)))];
    view("shape").textContent = `${names.join(" → ")}: ${networks.parameters(made.layers).toLocaleString("en-US")} weights and options`;
    if (state.place >= linear.length) state.place = 0;
    showOptions(linear);
    for (const input of document.querySelectorAll("#faults input")) {
      const { why } = faults.plant(input.value, { ...made, place: state.place, seed: state.seed });
      input.disabled = Boolean(why);
      input.parentElement.querySelector(".why").textContent = why ?? "";
      if (why && state.fault === input.value) state.fault = "none";
    }
    for (const input of document.querySelectorAll("#faults input")) input.checked = input.value === state.fault;
    const right = judged("none", made), result = judged(state.fault, made);
    showFound(result, right);
    showLayers(result);
    showAll(made, right);
  }

  function select(label, choices, key) {
    const options = Object.entries(choices).map(([value, words]) => make("option", { value, selected: value === String(state[key]) }, words));
    const list = make("select", { id: `option-${key}` }, ...options);
    list.addEventListener("change", () => {
      state[key] = typeof state[key] === "number" ? Number(list.value) : list.value;
      update();
    });
    return make("label", {}, make("span", {}, label), list);
  }

  // A number that a person may change; `take` gets it where it is allowed.
  function number(label, value, [low, high], take, { whole = true, shown = true } = {}) {
    const field = make("input", { type: "number", min: low, max: high, step: whole ? 1 : "any", value: String(value), required: true });
    field.setAttribute("aria-label", label);
    field.addEventListener("input", () => {
      field.setAttribute("aria-invalid", String(!field.validity.valid));
      if (!field.validity.valid) return;
      take(Number(field.value));
      update();
    });
    return make("label", { className: "number" }, make("span", { className: shown ? "" : "soft" }, shown ? label : label.split(" ")[0]), field);
  }

  function showOptions(linear) {
    const focused = document.activeElement?.id;
    const seed = make("input", { type: "number", id: "option-seed", min: 0, max: 999999, step: 1, value: String(state.seed), required: true });
    seed.addEventListener("change", () => {
      if (!seed.validity.valid) return;
      state.seed = Number(seed.value);
      update();
    });
    view("options").replaceChildren(
      select("One weight of linear", Object.fromEntries(linear.map(({ path, inputs, outputs }, i) => [i, `'${path}', ${inputs} → ${outputs}`])), "place"),
      select("Rows", { 10: "10", 100: "100", 1000: "1,000" }, "rows"),
      select("The runtime sums", { four: "four at a time", sequence: "in the module's order" }, "order"),
      make("label", {}, make("span", {}, "Seed"), seed),
    );
    if (focused) view(focused)?.focus();
  }

  function showBuilder() {
    const items = state.blocks.map((block, index) => {
      const kinds = make("select", {}, ...Object.keys(making.KINDS).map((kind) => make("option", { value: kind, selected: kind === block.kind }, kind)));
      kinds.setAttribute("aria-label", `block ${index}`);
      kinds.addEventListener("change", () => edit(() => (state.blocks[index] = { kind: kinds.value, number: making.KINDS[kinds.value]?.[1] })));
      const given = making.KINDS[block.kind];
      const field = given ? number(`${given[0]} of block ${index}`, block.number, given.slice(2), (value) => (block.number = value), { whole: given[0] === "outputs", shown: false }) : make("span", { className: "number" });
      return make("li", {}, make("span", { className: "soft" }, String(index)), kinds, field, button("+", `Add a block behind block ${index}`, () => state.blocks.splice(index + 1, 0, { kind: "relu" }), state.blocks.length >= MOST_BLOCKS), button("−", `Remove block ${index}`, () => state.blocks.splice(index, 1), state.blocks.length < 2));
    });
    const features = number("Features of a row", state.features, [1, 64], (value) => (state.features = value));
    const toFile = record.network ? make("p", { className: "tools" }, button(`The network of ${record.name}`, null, () => (state.own = false))) : null;
    const toOwn = make("p", { className: "tools" }, button("Build a network instead", null, () => (state.own = true)));
    view("builder").replaceChildren(...(state.own ? [features, make("ol", { className: "blocks" }, ...items), toFile].filter(Boolean) : [toOwn]));
  }

  function button(text, label, act, disabled = false) {
    const made = make("button", { type: "button", disabled }, text);
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", () => edit(act));
    return made;
  }

  function edit(change) {
    const place = [...view("builder").querySelectorAll("button, select")].indexOf(document.activeElement);
    change();
    showBuilder();
    update();
    [...view("builder").querySelectorAll("button, select")][place]?.focus();
  }

  for (const [name, words] of Object.entries(faults.names)) {
    const input = make("input", { type: "radio", name: "fault", value: name });
    input.addEventListener("change", () => {
      state.fault = name;
      update();
    });
    view("faults").append(make("label", {}, input, ` ${words}`, make("span", { className: "soft why" })));
  }
  for (const [key, value] of Object.entries(record.about)) view("about").append(make("dt", {}, key), make("dd", {}, value));
  showBuilder();
  update();
  return { record, state, network, judged };
})();
