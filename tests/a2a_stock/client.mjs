// As client10.py, with @a2a-js/sdk: node client.mjs CARD_BASE TOKEN BINDING CONTROL
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [base, token, binding, control, modules] = process.argv.slice(2);
const { resolve } = createRequire(pathToFileURL(`${modules}/index.js`));
const { ClientFactory, ClientFactoryOptions, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } =
  await import(pathToFileURL(resolve("@a2a-js/sdk/client")));

const fetchImpl = (url, options = {}) => {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${token}`);
  return fetch(url, { ...options, headers });
};
const finish = () => fetch(`${control}/finish`, { method: "POST" });
const message = (text, configuration) => ({
  message: { messageId: randomUUID(), role: 1, parts: [{ content: { $case: "text", value: text } }], contextId: "",
    taskId: "", metadata: undefined, extensions: [], referenceTaskIds: [] },
  configuration, metadata: undefined, tenant: "",
});
const kind = event => event.payload.$case;

const transport = binding === "JSONRPC" ? new JsonRpcTransportFactory({ fetchImpl }) : new RestTransportFactory({ fetchImpl });
const factory = new ClientFactory(ClientFactoryOptions.createFrom(ClientFactoryOptions.default, {
  transports: [transport], preferredTransports: [binding], cardResolver: new DefaultAgentCardResolver({ fetchImpl }),
}));
const client = await factory.createFromUrl(`${base}/`, ".well-known/agent-card.json");
const found = {};

const done = await client.sendMessage(message("hello"));
const task = done.payload ? done.payload.value : done;
found.send = [task.status.state, task.artifacts.at(-1).parts[0].content.value];

found.stream = [];
for await (const event of client.sendMessageStream(message("hold the line"))) {
  found.stream.push(kind(event));
  if (kind(event) === "artifactUpdate" && found.stream.filter(one => one === "artifactUpdate").length === 1) await finish();
}
found.get = (await client.getTask({ id: task.id, tenant: "" })).status.state;

const start = async () => {
  const begun = await client.sendMessage(message("hold", { acceptedOutputModes: [], returnImmediately: true }));
  return (begun.payload ? begun.payload.value : begun).id;
};
found.cancel = (await client.cancelTask({ id: await start(), tenant: "", metadata: undefined })).status.state;

found.subscribe = [];
for await (const event of client.resubscribeTask({ id: await start(), tenant: "" })) {
  found.subscribe.push(kind(event));
  if (found.subscribe.length === 1) await finish();
}

const running = await start();
const hook = { tenant: "", id: "mine", taskId: running, url: `${control}/push`, token: "secret", authentication: undefined };
await client.createTaskPushNotificationConfig(hook);
found.push_again = (await client.getTaskPushNotificationConfig({ tenant: "", taskId: running, id: "mine" })).url === hook.url;
await finish();
found.push = false;
for (let tries = 0; tries < 400 && !found.push; tries++) {
  found.push = (await (await fetch(`${control}/push`)).json()).some(entry => entry.body.includes(running));
  if (!found.push) await new Promise(wake => setTimeout(wake, 50));
}
try { await client.getTask({ id: randomUUID(), tenant: "" }); } catch (error) { found.unknown = error.constructor.name; }
console.log(JSON.stringify(found));
