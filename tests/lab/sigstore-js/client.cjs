// Signs and verifies files by sigstore-js, from the command line:
//
//   node client.cjs PACKAGES verify ROOT BUNDLE IDENTITY ISSUER FILE
//   node client.cjs PACKAGES sign URL API TOKEN BUNDLE FILE      API: version of the log's
//   node client.cjs PACKAGES attest URL API TOKEN BUNDLE FILE    FILE: an in-toto statement
//
// URL names authority, log and time-stamp authority with commas between them.
const fs = require('fs');
const [packages, command, ...args] = process.argv.slice(2);
const load = (name) => require(`${packages}/@sigstore/${name}`);

async function main() {
  await { verify, sign: (...args) => make(false, ...args), attest: (...args) => make(true, ...args) }[command](...args);
}

function verify(root, file, identity, issuer, artifact) {
  const { bundleFromJSON } = load('bundle');
  const { Verifier, toSignedEntity, toTrustMaterial } = load('verify');
  const { TrustedRoot } = load('protobuf-specs');
  const json = (path) => JSON.parse(fs.readFileSync(path, 'utf8'));
  const trusted = toTrustMaterial(TrustedRoot.fromJSON(json(root)));
  const bundle = bundleFromJSON(json(file));
  const entity = toSignedEntity(bundle, fs.readFileSync(artifact));
  const policy = { subjectAlternativeName: identity, extensions: { issuer } };
  new Verifier(trusted).verify(entity, policy);
}

async function make(attests, url, api, token, file, artifact) {
  const { bundleToJSON } = load('bundle');
  const { DSSEBundleBuilder, FulcioSigner, MessageSignatureBundleBuilder, RekorWitness, TSAWitness } = load('sign');
  const [fulcio, log, stamps] = url.split(',');
  const signer = new FulcioSigner({
    fulcioBaseURL: fulcio, identityProvider: { getToken: async () => token }, retry: 0,
  });
  const witnesses = [new RekorWitness({ rekorBaseURL: log, majorApiVersion: Number(api), retry: 0 })];
  if (api === '2') witnesses.push(new TSAWitness({ tsaBaseURL: stamps, retry: 0 }));
  const data = fs.readFileSync(artifact);
  const options = { signer, witnesses };
  const builder = attests ? new DSSEBundleBuilder(options) : new MessageSignatureBundleBuilder(options);
  const artifacts = attests ? { data, type: 'application/vnd.in-toto+json' } : { data };
  const bundle = await builder.create(artifacts);
  fs.writeFileSync(file, JSON.stringify(bundleToJSON(bundle)));
}

main().catch((error) => {
  console.error(error, error.cause ?? '');
  process.exit(1);
});
