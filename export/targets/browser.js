// Runs the model in the page, and compares its outputs with those of the certificate.
const record = JSON.parse(document.getElementById("record").textContent);
const { make, short, width } = ports;
const view = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function embedded(id) {
  const content = bytes(view(id).textContent);
  view(id).remove(); // the text is long, and no longer needed
  return content;
}

function tensor({ shape, dtype, base64 }) {
  const values = bytes(base64).buffer;
  if (dtype === "int64") return { shape, values: Float64Array.from(new BigInt64Array(values), Number) };
  return { shape, values: dtype === "float64" ? new Float64Array(values) : new Float32Array(values) };
}

function tensors(records) {
  return Object.fromEntries(Object.entries(records).map(([name, entry]) => [name, tensor(entry)]));
}

async function session(file) {
  const packed = new Blob([embedded("wasm")]).stream().pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = new Uint8Array(await new Response(packed).arrayBuffer());
  ort.env.wasm.numThreads = 1; // more need headers that a static server does not send
  ort.env.logLevel = "error";
  return ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
}

// The outputs for rows {name: {shape, values}} of all inputs; a file of a fixed batch runs them in batches, the last one
// padded with the last row.
async function infer(runs, rows) {
  const total = Object.values(rows)[0].shape[0];
  const step = Number(record.inputs[0].shape[0]) || total;
  const outputs = Object.fromEntries(record.outputs.map((port) => [port.name, new Float32Array((total + step) * width(port))]));
  for (let at = 0; at < total; at += step) {
    const indices = Array.from({ length: step }, (_, i) => Math.min(at + i, total - 1));
    const feed = Object.entries(rows).map(([name, { shape, values }]) => {
      const size = values.length / total;
      const value = (_, i) => values[indices[Math.floor(i / size)] * size + (i % size)];
      const { dtype } = record.inputs.find((port) => port.name === name);
      const Kind = dtype === "int64" ? BigInt64Array : Float32Array;
      const batch = Kind.from({ length: step * size }, dtype === "int64" ? (_, i) => BigInt(value(_, i)) : value);
      return [name, new ort.Tensor(dtype, batch, [step, ...shape.slice(1)])];
    });
    const results = await runs.run(Object.fromEntries(feed));
    for (const [name, values] of Object.entries(outputs)) values.set(results[name].data, at * (results[name].data.length / step));
  }
  return Object.fromEntries(record.outputs.map((port) => [port.name, outputs[port.name].subarray(0, total * width(port))]));
}

// Every output compared with its exact value and bound: how many are beyond, and the largest share of a bound.
function compare(outputs, exact, bound) {
  const result = { values: 0, beyond: 0, first: null, share: 0 };
  for (const [name, { shape, values }] of Object.entries(exact)) {
    const size = values.length / shape[0];
    values.forEach((value, i) => {
      const error = Math.abs(outputs[name][i] - value), limit = bound[name].values[i];
      result.values++;
      if (!(error <= limit)) {
        result.beyond++;
        result.first ??= { name, row: Math.floor(i / size), index: i % size, value: outputs[name][i], exact: value, limit };
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

function showVerdict(proved, ...paragraphs) {
  const [first, ...rest] = paragraphs.map((text) => make("p", {}, text));
  first.prepend(make("strong", {}, proved ? "Proved. " : "Not proved. "));
  view("verdict").className = `verdict ${proved ? "proved" : "failed"}`;
  view("verdict").replaceChildren(first, ...rest);
}

function judge(same, result, rows) {
  const { first } = result;
  const within = `all ${count(result.values)} outputs for the certificate's ${rows} rows are within the proved bound of the exact answers; the farthest uses ${share(result.share)} of it`;
  const wrong = first && `${first.name}[${first.index}] of row ${first.row + 1} is ${short(first.value)} here, and the exact answer is ${Number(first.exact.toPrecision(9))} ± ${first.limit.toPrecision(3)}; ${count(result.beyond)} of ${count(result.values)} outputs are beyond their bound.`;
  const file = {
    true: "The file has the SHA-256 that the certificate names.",
    false: "The file in this page is not the one that was proved: its SHA-256 is another.",
    null: "The file's SHA-256 was not compared: browsers compute it only for pages from https, localhost or a disk.",
  }[same];
  const proved = record.proved && result.beyond === 0 && same !== false;
  const text = first ? `This browser does not compute what the PyTorch module computes: ${wrong}` : `In this browser ${within}.`;
  showVerdict(proved, proved ? `This browser computes what the PyTorch module computes: ${within}.` : text, file);
}

function share(value) {
  return value < 0.01 ? "less than 1\u00a0%" : `${Math.round(100 * value)}\u00a0%`;
}

function describe() {
  const rows = {
    file: record.file, "SHA-256": record.sha256, "proved on": `${record.made}, ${record.device}, mlpx ${record.mlpx}`,
    "runs on": `ONNX Runtime Web ${record.runtime}, WebAssembly, one thread`,
    ...(record.bound && { "error of correct float32": record.bound }),
  };
  for (const [key, value] of Object.entries(rows)) view("about").append(make("dt", {}, key), make("dd", {}, value));
}

async function start() {
  describe();
  const file = embedded("model");
  const answers = { inputs: tensors(record.answers.inputs), exact: tensors(record.answers.exact), bound: tensors(record.answers.bound) };
  const same = await isOfCertificate(file);
  const runs = await session(file);
  const computed = await infer(runs, answers.inputs);
  judge(same, compare(computed, answers.exact, answers.bound), record.answers.rows);

  const outputs = record.outputs.map((port) => ({ port, ...bars.output(port) }));
  view("outputs").append(...outputs.map(({ element }) => element));
  const inputs = record.inputs.map((port) => ({ port, ...form.input(port, edited) }));
  view("inputs").append(...inputs.map(({ element }) => element));

  let running = false, again = false, chosen = "";
  async function update() {
    if (running) return void (again = true); // one run at a time; the newest values come next
    running = true;
    do {
      again = false;
      const row = chosen;
      const feed = inputs.map(({ port, values }) => [port.name, { shape: [1, ...port.shape.slice(1).map((size) => Number(size) || 1)], values: Float64Array.from(values()) }]);
      try {
        const results = await infer(runs, Object.fromEntries(feed));
        outputs.forEach(({ port, show }) => show(results[port.name]));
        view("distance").textContent = row === "" ? "" : distance(results, Number(row));
      } catch (error) {
        view("distance").textContent = `The model does not take this row: ${error.message ?? error}`;
      }
    } while (again);
    running = false;
  }
  function distance(results, row) {
    const result = compare(results, oneRow(answers.exact, row), oneRow(answers.bound, row));
    return result.beyond ? `Row ${row + 1}: beyond the bound of the exact answer.` : `Row ${row + 1}: within the bound of the exact answer, ${share(result.share)} of it used.`;
  }
  function oneRow(arrays, row) {
    return Object.fromEntries(Object.entries(arrays).map(([name, { shape, values }]) => {
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
    const rows = oneRow(answers.inputs, Number(chosen));
    inputs.forEach(({ port, set }) => set(Array.from(rows[port.name].values)));
    update();
  });
  await update();
}

start().catch((error) => showVerdict(false, `The model cannot be run in this browser: ${error.message ?? error}`));
