// Runs the model that the page holds, and judges its answers by the certificate's.
const record = JSON.parse(document.getElementById("record").textContent);
const { make, short, width } = ports;
const view = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function embedded(id) {
  const found = bytes(view(id).textContent);
  view(id).remove(); // the text is no longer needed, and long
  return found;
}

function tensor({ shape, dtype, base64 }) {
  const values = bytes(base64).buffer;
  return { shape, values: dtype === "float64" ? new Float64Array(values) : new Float32Array(values) };
}

function tensors(held) {
  return Object.fromEntries(Object.entries(held).map(([name, one]) => [name, tensor(one)]));
}

async function session(file) {
  const packed = new Blob([embedded("wasm")]).stream().pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = new Uint8Array(await new Response(packed).arrayBuffer());
  ort.env.wasm.numThreads = 1; // more need headers that a static server does not send
  ort.env.logLevel = "error";
  return ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
}

// The outputs of rows {name: {shape, values}} of all inputs; a file of a fixed batch takes them in turns, the last one
// filled up with the last row.
async function infer(runs, rows) {
  const total = Object.values(rows)[0].shape[0];
  const step = Number(record.inputs[0].shape[0]) || total;
  const found = Object.fromEntries(record.outputs.map((port) => [port.name, new Float32Array((total + step) * width(port))]));
  for (let at = 0; at < total; at += step) {
    const turn = Array.from({ length: step }, (_, i) => Math.min(at + i, total - 1));
    const feed = Object.entries(rows).map(([name, { shape, values }]) => {
      const size = values.length / total;
      const taken = Float32Array.from({ length: step * size }, (_, i) => values[turn[Math.floor(i / size)] * size + (i % size)]);
      return [name, new ort.Tensor("float32", taken, [step, ...shape.slice(1)])];
    });
    const results = await runs.run(Object.fromEntries(feed));
    for (const [name, held] of Object.entries(found)) held.set(results[name].data, at * (results[name].data.length / step));
  }
  return Object.fromEntries(record.outputs.map((port) => [port.name, found[port.name].subarray(0, total * width(port))]));
}

// Every output against its exact value and bound: what is beyond, and the largest share of a bound that is used.
function compare(found, exact, bound) {
  const result = { values: 0, beyond: 0, first: null, share: 0 };
  for (const [name, { shape, values }] of Object.entries(exact)) {
    const size = values.length / shape[0];
    values.forEach((value, i) => {
      const error = Math.abs(found[name][i] - value), limit = bound[name].values[i];
      result.values++;
      if (!(error <= limit)) {
        result.beyond++;
        result.first ??= { name, row: Math.floor(i / size), index: i % size, found: found[name][i], exact: value, limit };
      }
      result.share = Math.max(result.share, error === 0 ? 0 : error / limit);
    });
  }
  return result;
}

// Whether the file is the one that was proved; null where the browser has no SHA-256 for this page.
async function isOfCertificate(file) {
  if (!crypto.subtle) return null;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === record.sha256;
}

function say(proved, ...paragraphs) {
  const [first, ...rest] = paragraphs.map((words) => make("p", {}, words));
  first.prepend(make("strong", {}, proved ? "Proved. " : "Not proved. "));
  view("verdict").className = `verdict ${proved ? "proved" : "failed"}`;
  view("verdict").replaceChildren(first, ...rest);
}

function judge(same, result, rows) {
  const { first } = result;
  const within = `all ${count(result.values)} outputs for the certificate's ${rows} rows are within the proved bound of the exact answers; the farthest uses ${share(result.share)} of it`;
  const wrong = first && `${first.name}[${first.index}] of row ${first.row + 1} is ${short(first.found)} here, and the exact answer is ${Number(first.exact.toPrecision(9))} ± ${first.limit.toPrecision(3)}; ${count(result.beyond)} of ${count(result.values)} outputs are beyond their bound.`;
  const file = {
    true: "The file has the SHA-256 that the certificate names.",
    false: "The file in this page is not the one that was proved: its SHA-256 is another.",
    null: "The file's SHA-256 was not compared: browsers compute it only for pages from https, localhost or a disk.",
  }[same];
  const proved = record.proved && result.beyond === 0 && same !== false;
  const words = first ? `This browser does not compute what the PyTorch module computes: ${wrong}` : `In this browser ${within}.`;
  say(proved, proved ? `This browser computes what the PyTorch module computes: ${within}.` : words, file);
}

function share(value) {
  return value < 0.01 ? "less than 1\u00a0%" : `${Math.round(100 * value)}\u00a0%`;
}

function describe() {
  const rows = {
    file: record.file, "SHA-256": record.sha256, "proved on": `${record.made}, ${record.device}, mlpx ${record.mlpx}`,
    "runs on": `ONNX Runtime Web ${record.runtime}, WebAssembly, one thread`,
  };
  for (const [key, value] of Object.entries(rows)) view("about").append(make("dt", {}, key), make("dd", {}, value));
}

async function start() {
  describe();
  const file = embedded("model");
  const answers = { inputs: tensors(record.answers.inputs), exact: tensors(record.answers.exact), bound: tensors(record.answers.bound) };
  const same = await isOfCertificate(file);
  const runs = await session(file);
  const found = await infer(runs, answers.inputs);
  judge(same, compare(found, answers.exact, answers.bound), record.answers.rows);

  const outputs = record.outputs.map((port) => ({ port, ...bars.output(port) }));
  view("outputs").append(...outputs.map((one) => one.element));
  const inputs = record.inputs.map((port) => ({ port, ...form.input(port, edited) }));
  view("inputs").append(...inputs.map((one) => one.element));

  let running = false, again = false, chosen = "";
  async function update() {
    if (running) return void (again = true); // one run at a time; the newest values come next
    running = true;
    do {
      again = false;
      const row = chosen;
      const given = inputs.map(({ port, values }) => [port.name, { shape: [1, ...port.shape.slice(1).map((size) => Number(size) || 1)], values: Float32Array.from(values()) }]);
      const got = await infer(runs, Object.fromEntries(given));
      outputs.forEach(({ port, show }) => show(got[port.name]));
      view("distance").textContent = row === "" ? "" : distance(got, Number(row));
    } while (again);
    running = false;
  }
  function distance(got, row) {
    const result = compare(got, only(answers.exact, row), only(answers.bound, row));
    return result.beyond ? `Row ${row + 1}: beyond the bound of the exact answer.` : `Row ${row + 1}: within the bound of the exact answer, ${share(result.share)} of it used.`;
  }
  function only(held, row) {
    return Object.fromEntries(Object.entries(held).map(([name, { shape, values }]) => {
      const size = values.length / shape[0];
      return [name, { shape: [1, ...shape.slice(1)], values: values.slice(row * size, (row + 1) * size) }];
    }));
  }
  function edited() {
    chosen = view("row").value = "";
    update();
  }
  for (let i = 0; i < record.answers.rows; i++) view("row").append(make("option", { value: String(i) }, `row ${i + 1}`));
  view("row").addEventListener("change", () => {
    chosen = view("row").value;
    if (chosen === "") return;
    const rows = only(answers.inputs, Number(chosen));
    inputs.forEach(({ port, set }) => set(Array.from(rows[port.name].values)));
    update();
  });
  await update();
}

start().catch((error) => say(false, `The model cannot be run in this browser: ${error.message ?? error}`));
