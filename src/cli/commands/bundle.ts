import { readFile } from 'node:fs/promises'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { Bundle as WireBundle } from '#rpc/gen/spire/api/types/bundle.ts'
import { type Bundle, bundleFromPem, bundleToPem } from '#spiffe/bundle.ts'
import { encodeBundle, parseBundle } from '#spiffe/bundle-json.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import {
  type Command,
  type CommandContext,
  choice,
  type Option,
  optional,
  required,
} from '../command.ts'
import { connectServer, serverOptions } from '../daemons.ts'
import { pages, requireOk } from '../wire.ts'

function fromWire(bundle: WireBundle): Bundle {
  return {
    trustDomain: parseTrustDomain(bundle.trustDomain),
    x509Authorities: bundle.x509Authorities.map(({ asn1, tainted }) => ({
      certificate: asn1,
      tainted,
    })),
    jwtAuthorities: bundle.jwtAuthorities.map(({ keyId, publicKey, expiresAt, tainted }) => ({
      keyId,
      publicKey,
      expiresAtSeconds: expiresAt,
      tainted,
    })),
    refreshHintSeconds: bundle.refreshHint,
    sequenceNumber: bundle.sequenceNumber,
  }
}

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

const formatOption: Option = {
  name: 'format',
  value: 'FORMAT',
  summary: 'pem (X.509 authorities, the default) or spiffe (the SPIFFE bundle document)',
}

function text(context: CommandContext, bundle: Bundle): string {
  if (context.json || choice(context, 'format', ['pem', 'spiffe']) === 'spiffe')
    return encodeBundle(bundle)
  return bundleToPem(bundle).trimEnd()
}

const show: Command = {
  name: 'bundle show',
  summary: 'what verifiers of this trust domain need to know',
  options: [...serverOptions, formatOption],
  details: `
What an agent is started with:

  assay bundle show > /etc/assay/bundle.pem`,
  async run(context) {
    using connection = connectServer(context)
    const bundle = await connection
      .client(BundleDefinition)
      .getBundle({}, { signal: context.signal })
    context.print(text(context, fromWire(bundle)))
  },
}

const list: Command = {
  name: 'bundle list',
  summary: 'bundles of other trust domains',
  options: [
    ...serverOptions,
    { name: 'trust-domain', value: 'NAME', summary: 'only this trust domain' },
    formatOption,
  ],
  async run(context) {
    using connection = connectServer(context)
    const client = connection.client(BundleDefinition)
    const name = optional(context, 'trust-domain')
    if (name !== undefined) {
      const one = { trustDomain: parseTrustDomain(name) }
      return context.print(
        text(context, fromWire(await client.getFederatedBundle(one, { signal: context.signal }))),
      )
    }
    const bundles: Bundle[] = []
    for await (const bundle of pages(async (pageToken) => {
      const request = { pageSize: 100, pageToken }
      const answer = await client.listFederatedBundles(request, { signal: context.signal })
      return { items: answer.bundles, nextPageToken: answer.nextPageToken }
    })) {
      bundles.push(fromWire(bundle))
    }
    if (context.json) {
      const documents = bundles.map(
        (one) => `${JSON.stringify(one.trustDomain)}:${encodeBundle(one)}`,
      )
      return context.print(`{${documents.join(',')}}`)
    }
    for (const bundle of bundles) context.print(`# ${bundle.trustDomain}\n${text(context, bundle)}`)
    if (bundles.length === 0) context.note('no bundle of another trust domain')
  },
}

const set: Command = {
  name: 'bundle set',
  summary: 'create or replace the bundle of another trust domain',
  options: [
    ...serverOptions,
    { name: 'trust-domain', value: 'NAME', required: true, summary: 'whose bundle it is' },
    { name: 'path', value: 'FILE', summary: "where to read it; standard input when absent or '-'" },
    formatOption,
  ],
  async run(context) {
    const trustDomain = parseTrustDomain(required(context, 'trust-domain'))
    const path = optional(context, 'path') ?? '-'
    const content = path === '-' ? await context.readInput() : await readFile(path, 'utf8')
    const bundle =
      choice(context, 'format', ['pem', 'spiffe']) === 'spiffe'
        ? parseBundle(content, trustDomain)
        : bundleFromPem(trustDomain, content)
    using connection = connectServer(context)
    const { results } = await connection
      .client(BundleDefinition)
      .batchSetFederatedBundle({ bundle: [toWire(bundle)] }, { signal: context.signal })
    requireOk(results[0]?.status, `set the bundle of ${trustDomain}`)
    context.print(
      context.json ? JSON.stringify({ set: trustDomain }) : `set the bundle of ${trustDomain}`,
    )
  },
}

const modes = { restrict: 0, delete: 1, dissociate: 2 } as const

const remove: Command = {
  name: 'bundle delete',
  summary: 'stop trusting another trust domain',
  options: [
    ...serverOptions,
    { name: 'trust-domain', value: 'NAME', required: true, summary: 'whose bundle' },
    {
      name: 'mode',
      value: 'MODE',
      summary:
        'when entries federate with it: restrict (refuse, default), delete (them too), dissociate (unlink them)',
    },
  ],
  async run(context) {
    const trustDomain = parseTrustDomain(required(context, 'trust-domain'))
    const mode = modes[choice(context, 'mode', ['restrict', 'delete', 'dissociate'])]
    using connection = connectServer(context)
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

export const bundleCommands: readonly Command[] = [show, list, set, remove]
