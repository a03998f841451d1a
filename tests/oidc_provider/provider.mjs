// An OpenID provider for the tests: it prints {"issuer": ...} once it answers, then a line for each command on stdin:
//   rotate   new keys under new names; the old ones stay published
//   replace  new keys under the old names; the old ones are gone
// The resource that a client asks for ends in the algorithm of its tokens, or in "opaque". Ends when stdin closes.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'];
let generation = 0;
let keys = [];

async function makeKeys() {
  return Promise.all(
    ALGORITHMS.map(async (alg) => {
      const { privateKey } = await generateKeyPair(alg, { extractable: true });
      return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${generation}` };
    }),
  );
}

function resourceServer(ctx, resource) {
  const kind = resource.split('/').pop();
  const format = kind === 'opaque' ? { accessTokenFormat: 'opaque' } : { accessTokenFormat: 'jwt', jwt: { sign: { alg: kind } } };
  return { audience: resource, scope: 'chat:run', accessTokenTTL: 600, ...format };
}

function provider(issuer) {
  return new Provider(issuer, {
    clients: [
      {
        client_id: 'robot',
        client_secret: 'robot-secret',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    scopes: ['chat:run'],
    jwks: { keys },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
    },
  }).callback();
}

const server = createServer((request, response) => answer(request, response));
let answer;
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  keys = await makeKeys();
  answer = provider(issuer);
  console.log(JSON.stringify({ issuer }));
  for await (const command of createInterface({ input: process.stdin })) {
    if (command === 'rotate') generation += 1;
    const made = await makeKeys();
    keys = command === 'rotate' ? [...made, ...keys] : made;
    answer = provider(issuer);
    console.log(JSON.stringify({ done: command }));
  }
  process.exit(0);
});
