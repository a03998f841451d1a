// What people with keys of their own would send: `node sign.mjs did-jwt ALG AUDIENCE` and `node sign.mjs siwe CHALLENGE`.
// Prints one JSON object.
import { randomBytes } from "node:crypto";

const signDIDJWT = async (alg, aud) => {
  const { ES256KSigner, EdDSASigner, bytesToMultibase, createJWT } = await import("did-jwt");
  const { ed25519 } = await import("@noble/curves/ed25519");
  const { secp256k1 } = await import("@noble/curves/secp256k1");
  const secret = randomBytes(32);
  const [curve, codec, signer] =
    alg === "EdDSA"
      ? [ed25519, "ed25519-pub", EdDSASigner(Buffer.concat([secret, ed25519.getPublicKey(secret)]))]
      : [secp256k1, "secp256k1-pub", ES256KSigner(secret)];
  const issuer = `did:key:${bytesToMultibase(curve.getPublicKey(secret), "base58btc", codec)}`;
  const token = await createJWT({ aud, sub: issuer }, { issuer, signer, expiresIn: 300 }, { alg });
  return { did: issuer, token };
};

const signSIWE = async (challenge) => {
  const { generatePrivateKey, privateKeyToAccount } = await import("viem/accounts");
  const { createSiweMessage } = await import("viem/siwe");
  const account = privateKeyToAccount(generatePrivateKey());
  const message = createSiweMessage({
    address: account.address,
    chainId: challenge.chain_ids[0],
    domain: challenge.domain,
    expirationTime: new Date(Date.now() + 600_000),
    nonce: challenge.nonce,
    statement: "Sign in to chat.",
    uri: challenge.uri,
    version: challenge.version,
  });
  return { address: account.address, message, signature: await account.signMessage({ message }) };
};

const [what, ...options] = process.argv.slice(2);
const signed = what === "siwe" ? await signSIWE(JSON.parse(options[0])) : await signDIDJWT(...options);
console.log(JSON.stringify(signed));
