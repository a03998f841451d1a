// An OpenID provider for the tests: it prints {"issuer": ...} once it answers, then a line for each command on stdin:
//   rotate   new keys under new names; the old ones stay published
//   replace  new keys under the old names; the old ones are gone
//   retire   only the newest keys stay published
//   trust X  from now on tokens of the issuer X are traded for own ones (RFC 8693)
// The resource that a client asks for ends in the algorithm of its tokens, or in "opaque". Ends when stdin closes.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'];
let generation = 0;
let keys = [];
let abroad;
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

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
  return { audience: resource, scope: 'chat:run', accessTokenTTL: 3600, ...format };
}

async function subjectOf(token) {
  if (!abroad) throw new errors.InvalidGrant('nobody is trusted');
  try {
    const keysAbroad = createRemoteJWKSet(new URL(`${abroad}/jwks`));
    return (await jwtVerify(token, keysAbroad, { issuer: abroad })).payload.sub;
  } catch {
    throw new errors.InvalidGrant('the subject token is not accepted');
  }
}

async function exchange(ctx) {
  const { client, params, provider: own } = ctx.oidc;
  if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token_type');
  const accountId = `${await subjectOf(params.subject_token)} from abroad`;
  const issued = new own.AccessToken({ accountId, client, gty: 'token-exchange', scope: 'chat:run' });
  issued.resourceServer = new own.ResourceServer(params.audience, resourceServer(ctx, params.audience));
  ctx.body = {
    access_token: await issued.save(),
    issued_token_type: ACCESS_TOKEN,
    token_type: 'Bearer',
    expires_in: issued.expiration,
  };
}

function provider(issuer) {
  const made = new Provider(issuer, {
    clients: [
      {
        client_id: 'robot',
        client_secret: 'robot-secret',
        grant_types: ['client_credentials', EXCHANGE],
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
  });
  const parameters = ['subject_token', 'subject_token_type', 'requested_token_type', 'audience'];
  made.registerGrantType(EXCHANGE, exchange, parameters, []);
  return made.callback();
}

async function obey(command) {
  if (command.startsWith('trust ')) abroad = command.slice(6);
  else if (command === 'retire') keys = keys.slice(0, ALGORITHMS.length);
  else {
    if (command === 'rotate') generation += 1;
    const made = await makeKeys();
    keys = command === 'rotate' ? [...made, ...keys] : made;
  }
}

const server = createServer((request, response) => answer(request, response));
let answer;
server.listen(0, '127.0.0.1', async () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  keys = await makeKeys();
  answer = provider(issuer);
  console.log(JSON.stringify({ issuer }));
  for await (const command of createInterface({ input: process.stdin })) {
    await obey(command);
    answer = provider(issuer);
    console.log(JSON.stringify({ done: command }));
  }
  process.exit(0);
});
