import { AssayError } from '#base/errors.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { Bundle as WireBundle } from '#rpc/gen/spire/api/types/bundle.ts'
import { type Bundle, bundleFromPem, bundleToPem } from '#spiffe/bundle.ts'
import { encodeBundle, parseBundle } from '#spiffe/bundle-json.ts'
import { encodePqBundle } from '#spiffe/pq-bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { authorityFingerprints } from '../authority-fingerprints.ts'
import {
  type Command,
  type CommandContext,
  choice,
  isOn,
  type Option,
  optional,
  printText,
  readNamed,
  required,
  UsageError,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { count } from '../print.ts'
import { bundleFromWire, pages, pqBundleFromWire, requireOk } from '../wire.ts'

function toWire(bundle: Bundle): WireBundle {
  return WireBundle.create({
    trustDomain: bundle.trustDomain,
    x509Authorities: bundle.x509Authorities.map(({ certificate }) => ({ asn1: certificate })),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey, expiresAtSeconds }) => ({
      keyId,
      publicKey,
      expiresAt: expiresAtSeconds,
    })),
    refreshHint: bundle.refreshHintSeconds,
    sequenceNumber: bundle.sequenceNumber,
  })
}

const formats = ['pem', 'spiffe'] as const

const formatOption: Option = {
  name: 'format',
  value: 'FORMAT',
  choices: formats,
  summary: 'pem (X.509 authorities, the default) or spiffe (the SPIFFE bundle document)',
}

function text(context: CommandContext, bundle: Bundle): string {
  if (context.json || choice(context, 'format', formats) === 'spiffe') return encodeBundle(bundle)
  return bundleToPem(bundle).trimEnd()
}

const show: Command = {
  name: 'bundle show',
  summary: 'what verifiers of this trust domain need to know',
  options: [
    formatOption,
    {
      name: 'pq',
      summary: 'the post-quantum bundle instead: what verifies SVIDs by ML-DSA alone',
    },
    ...serverOptions,
  ],
  details: `
What an agent is started with:

  assay bundle show > /etc/assay/bundle.pem

The post-quantum bundle is a document of its own, because clients that know no ML-DSA refuse whatever has such a key in
it; it is for those alone that take post-quantum SVIDs. An agent needs none.`,
  async run(context) {
    using connection = await connectServer(context)
    if (isOn(context, 'pq')) {
      const answer = await connection
        .client(PostQuantumDefinition)
        .getBundle({}, { signal: context.signal })
      const bundle = pqBundleFromWire(answer)
      if (bundle.x509Authorities.length === 0) {
        throw new AssayError(
          'failed-precondition',
          'the trust domain has no post-quantum authority: pq_signatures: hybrid in server.yaml gives it one',
          { reason: 'no-pq-authority' },
        )
      }
      const isDocument = context.json || choice(context, 'format', formats) === 'spiffe'
      const shown = isDocument ? encodePqBundle(bundle) : bundleToPem(bundle).trimEnd()
      return printText(context, shown)
    }
    const bundle = await connection
      .client(BundleDefinition)
      .getBundle({}, { signal: context.signal })
    printText(context, text(context, bundleFromWire(bundle)))
  },
}

const list: Command = {
  name: 'bundle list',
  summary: 'bundles of other trust domains',
  options: [
    { name: 'trust-domain', value: 'NAME', summary: 'only this trust domain' },
    formatOption,
    ...serverOptions,
  ],
  async run(context) {
    using connection = await connectServer(context)
    const client = connection.client(BundleDefinition)
    const name = optional(context, 'trust-domain')
    if (name !== undefined) {
      const one = { trustDomain: parseTrustDomain(name) }
      const bundle = await client.getFederatedBundle(one, { signal: context.signal })
      return printText(context, text(context, bundleFromWire(bundle)))
    }
    const bundles: Bundle[] = []
    for await (const bundle of pages(async (pageToken) => {
      const request = { pageSize: 100, pageToken }
      const answer = await client.listFederatedBundles(request, { signal: context.signal })
      return { items: answer.bundles, nextPageToken: answer.nextPageToken }
    })) {
      bundles.push(bundleFromWire(bundle))
    }
    if (context.json) {
      const documents = bundles.map(
        (one) => `${JSON.stringify(one.trustDomain)}:${encodeBundle(one)}`,
      )
      return printText(context, `{${documents.join(',')}}`)
    }
    for (const bundle of bundles) {
      printText(context, `# ${bundle.trustDomain}\n${text(context, bundle)}`)
    }
    context.note(count(bundles.length, 'bundle'))
  },
}

const set: Command = {
  name: 'bundle set',
  summary: 'create or replace the bundle of another trust domain',
  options: [
    { name: 'trust-domain', value: 'NAME', required: true, summary: 'whose bundle it is' },
    { name: 'path', value: 'FILE', summary: "where to read it; standard input when absent or '-'" },
    formatOption,
    ...serverOptions,
  ],
  async run(context) {
    const trustDomain = parseTrustDomain(required(context, 'trust-domain'))
    const format = choice(context, 'format', formats)
    const content = await readNamed(context, optional(context, 'path') ?? '-')
    const bundle =
      format === 'spiffe' ? parseBundle(content, trustDomain) : bundleFromPem(trustDomain, content)
    const { length: x509Authorities } = bundle.x509Authorities
    const { length: jwtAuthorities } = bundle.jwtAuthorities
    if (x509Authorities + jwtAuthorities === 0) {
      throw new UsageError(
        `the bundle of ${trustDomain} holds no authority that can be used; 'assay bundle delete' ends the trust`,
      )
    }
    using connection = await connectServer(context)
    const { results } = await connection
      .client(BundleDefinition)
      .batchSetFederatedBundle({ bundle: [toWire(bundle)] }, { signal: context.signal })
    requireOk(results[0]?.status, `set the bundle of ${trustDomain}`)
    if (context.json) {
      const held = { x509_authorities: x509Authorities, jwt_authorities: jwtAuthorities }
      return context.print(JSON.stringify({ set: trustDomain, ...held }))
    }
    context.print(
      `set the bundle of ${trustDomain}: ${count(x509Authorities, 'X.509 authority', 'X.509 authorities')}, ${count(jwtAuthorities, 'JWT key')}`,
    )
    context.note(`next: entries get it by 'assay entry update --federates-with ${trustDomain}'`)
  },
}

const modes = { restrict: 0, delete: 1, dissociate: 2 } as const
const modeNames = ['restrict', 'delete', 'dissociate'] as const

const remove: Command = {
  name: 'bundle delete',
  summary: 'stop trusting another trust domain',
  options: [
    { name: 'trust-domain', value: 'NAME', required: true, summary: 'whose bundle' },
    {
      name: 'mode',
      value: 'MODE',
      choices: modeNames,
      summary:
        'what if entries federate with it: restrict (refuse, default), delete (them too), dissociate',
    },
    ...serverOptions,
  ],
  async run(context) {
    const trustDomain = parseTrustDomain(required(context, 'trust-domain'))
    const mode = modes[choice(context, 'mode', modeNames)]
    using connection = await connectServer(context)
    const { results } = await connection
      .client(BundleDefinition)
      .batchDeleteFederatedBundle({ trustDomains: [trustDomain], mode }, { signal: context.signal })
    requireOk(results[0]?.status, `delete the bundle of ${trustDomain}`)
    context.print(
      context.json
        ? JSON.stringify({ deleted: trustDomain })
        : `deleted the bundle of ${trustDomain}`,
    )
  },
}

const fingerprint: Command = {
  name: 'bundle fingerprint',
  summary: "SHA-256 of each authority's certificate, by which 'assay setup agent' knows the server",
  options: serverOptions,
  details: 'The first is the one that vouches for the server now.',
  async run(context) {
    using connection = await connectServer(context)
    const fingerprints = await authorityFingerprints(connection, context.signal)
    if (context.json) context.print(JSON.stringify({ fingerprints }))
    else for (const line of fingerprints) context.print(line)
  },
}

export const commands: readonly Command[] = [show, fingerprint, list, set, remove]
