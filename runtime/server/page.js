"use strict";
// The server's page: its models, a form to try one, and the request as a command. Asks for nothing but the server's API.
(() => {
  const { make, text, vocabulary, width, worded } = ports;
  const view = (id) => document.getElementById(id);
  let token = null; // in memory only
  let current = null; // the version that is tried
  let first = null; // opens the first one that is ready

  function fail(error) {
    view("failure").textContent = error.message;
  }

  function asked() {
    view("ask").hidden = false;
    view("token").focus();
    return new Promise((resolve) => {
      view("ask").onsubmit = (event) => {
        event.preventDefault();
        token = view("token").value;
        view("token").value = "";
        view("ask").hidden = true;
        resolve();
      };
    });
  }

  async function api(path, options = {}) {
    for (;;) {
      const headers = { ...options.headers, ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
      const response = await fetch(path, { ...options, headers }).catch(() => {
        throw new Error("The server does not answer.");
      });
      if (response.status === 401) {
        await (waiting ??= asked().finally(() => (waiting = null)));
        continue;
      }
      if (response.ok) return response;
      const told = await response.json().catch(() => ({}));
      throw new Error(told.error ?? `The server answered ${response.status}.`);
    }
  }
  let waiting = null; // one question for the token, whatever asks

  function post(path, body) {
    return api(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  }

  function place(model, version) {
    return `v2/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(version)}`;
  }

  // A link cannot carry the token: with one, the file is fetched and saved.
  function carrying(link) {
    link.addEventListener("click", async (event) => {
      if (token === null) return;
      event.preventDefault();
      try {
        const content = URL.createObjectURL(await (await api(link.href)).blob());
        make("a", { href: content, download: link.pathname.split("/").slice(-4).join("-") }).click();
        URL.revokeObjectURL(content);
      } catch (error) {
        fail(error);
      }
    });
    return link;
  }

  function proof(parameters) {
    const words = parameters.proved ? make("span", { className: "good" }, "proved") : make("span", { className: "warn" }, "not proved");
    const cell = make("td", {}, words);
    for (const [key, name] of [["certificate_page", "certificate"], ["certificate", "JSON"]]) {
      if (parameters[key]) cell.append(" ", carrying(make("a", { href: parameters[key] }, name)));
    }
    return cell;
  }

  async function row(entry) {
    const version = entry.version || "";
    const cells = [make("th", { scope: "row" }, entry.name), make("td", {}, version), make("td", {}, entry.state)];
    if (entry.state !== "READY") {
      return make("tr", {}, ...cells, make("td", { colSpan: 3, className: "soft" }, entry.reason ?? ""));
    }
    const metadata = await (await api(place(entry.name, version))).json();
    const button = make("button", { type: "button", data: { "aria-label": `Try ${entry.name}, version ${version}` } }, "Try");
    button.addEventListener("click", () => {
      open(entry.name, version, metadata);
      view("title").focus();
    });
    first ??= () => open(entry.name, version, metadata);
    const { parameters } = metadata;
    return make("tr", {}, ...cells, proof(parameters), make("td", {}, parameters.device), make("td", {}, button));
  }

  async function refresh() {
    view("failure").textContent = "";
    const index = await (await post("v2/repository/index", {})).json();
    const body = view("models").tBodies[0];
    const rows = [];
    for (const entry of index) rows.push(await row(entry));
    if (!rows.length) rows.push(make("tr", {}, make("td", { colSpan: 6 }, "This server has no models yet.")));
    body.replaceChildren(...rows);
    if (current === null) first?.();
  }

  function open(model, version, metadata) {
    const { inputs, outputs, bound, proved } = metadata.parameters;
    const batch = (port) => Number(port.shape[0]) || 1; // a file of a fixed batch gets the row as often as it takes
    current = { path: `${place(model, version)}/infer` };
    const mine = current;
    view("try").hidden = false;
    view("title").textContent = `Try ${model}, version ${version}`;
    view("wrong").textContent = "";
    const unproved = proved ? "" : "Not proved: no certificate says that this file computes what was trained.";
    view("bound").textContent = bound ? `Error of correct float32 arithmetic: ${bound.words}.` : unproved;
    const fields = inputs.map((port) => ({ port, ...form.input(port, update) }));
    const shown = outputs.map((port) => ({ port, ...bars.output(port) }));
    view("inputs").replaceChildren(...fields.map((one) => one.element));
    view("outputs").replaceChildren(...shown.map((one) => one.element));
    let running = false, again = false;

    function request() {
      return {
        inputs: fields.map(({ port, values }) => {
          const sizes = port.shape.slice(1).map((size) => Number(size) || 1);
          const words = worded(port) && values().every((value, i) => vocabulary(port, i)[value] !== undefined);
          const row = values().map((value, i) => (words ? vocabulary(port, i)[value] : Number(text(port, i, value))));
          const datatype = words ? "BYTES" : port.dtype === "int64" ? "INT64" : "FP32";
          const data = Array.from({ length: batch(port) }, () => row).flat();
          return { name: port.name, shape: [batch(port), ...sizes], datatype, data };
        }),
      };
    }

    async function update() {
      const body = request();
      view("curl").textContent = command(current.path, body);
      view("copied").textContent = "";
      if (running) return void (again = true); // one request at a time; the newest values come next
      running = true;
      do {
        again = false;
        try {
          const answer = await (await post(mine.path, request())).json();
          if (current !== mine) return;
          view("wrong").textContent = "";
          for (const { port, show } of shown) {
            const found = answer.outputs.find(({ name }) => name === port.name);
            show(found.data.slice(0, width(port)).map((value) => (value === null ? NaN : Number(value))));
          }
        } catch (error) {
          if (current === mine) view("wrong").textContent = error.message;
        }
      } while (again && current === mine);
      running = false;
    }
    update();
  }

  function command(path, body) {
    const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const lines = [`curl ${quoted(new URL(path, document.baseURI).href)}`, `-H ${quoted("Content-Type: application/json")}`];
    if (token !== null) lines.push('-H "Authorization: Bearer $TOKEN"');
    return [...lines, `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
  }

  document.querySelectorAll("#also a").forEach(carrying);
  view("refresh").addEventListener("click", () => refresh().catch(fail));
  view("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(view("curl").textContent);
      view("copied").textContent = "copied";
    } catch {
      view("copied").textContent = "the browser does not allow copying: select the text";
    }
  });
  refresh().catch(fail);
})();
