import { agentConfigSchema } from '#agent/config.ts'
import { utf8Bytes } from '#base/bytes.ts'
import { messageOf } from '#base/errors.ts'
import { type Bundle, bundleToPem } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { loadTpmDescription } from '#tpm/device/description.ts'
import { type Command, type CommandContext, isOn, UsageError } from '../command.ts'
import { holding } from '../hold.ts'
import { type Answers, agentAnswersSchema } from './answers.ts'
import { place, startUnit, writeConfig } from './apply.ts'
import { beginSetup, sharedOptions } from './beginning.ts'
import { checkedConfig } from './checked-config.ts'
import type { Change } from './edit-config.ts'
import { fetchBundle, parseFingerprint } from './pinned-bundle.ts'
import type { Terminal } from './terminal.ts'

const hostPort = /^(\[[0-9a-f:]+\]|[^:]+)(?::(\d{1,5}))?$/i

/** `assay setup agent`. */
export const setupAgent: Command = {
  name: 'setup agent',
  summary: 'fetch the trust bundle and pin it, write agent.yaml, and start the agent',
  options: [
    { name: 'trust-domain', value: 'NAME', summary: "the server's" },
    {
      name: 'server-address',
      value: 'HOST[:PORT]',
      summary: 'where the server is; port 8081 when absent',
    },
    {
      name: 'bundle-fingerprint',
      value: 'SHA256',
      summary: "of the server's authority, as 'assay setup server' printed it",
    },
    { name: 'tcti', value: 'TCTI', summary: 'the TPM; device:/dev/tpmrm0 when absent' },
    { name: 'join-token-file', value: 'FILE', summary: 'join by a token instead, without a TPM' },
    { name: 'config', value: 'FILE', summary: '/etc/assay/agent.yaml when absent' },
    ...sharedOptions,
  ],
  details: `
The server is believed when it proves to hold the authority with that fingerprint. Without it somebody is asked, on a
terminal, whether what the server shows is what 'assay bundle fingerprint' prints on the authority. Can be run again.`,
  async run(context) {
    const beginning = await beginSetup(context, {
      answersSchema: agentAnswersSchema,
      otherwisePath: '/etc/assay/agent.yaml',
      question: 'The name of the trust domain',
    })
    const { terminal, answers, path, dryRun, before, already, trustDomain } = beginning
    const address = await answers.get('server_address', {
      question: 'The host name or address of the server',
      otherwise: already['server_address'],
      check: (text) => {
        if (!hostPort.test(text)) throw new UsageError(`'${text}' is no host: HOST or HOST:PORT`)
      },
    })
    const [, host = '', port = already['server_port'] ?? '8081'] = hostPort.exec(address) ?? []
    const bundlePath = already['trust_bundle_path'] ?? path.replace(/[^/]*$/, 'bundle.pem')
    const source = {
      host: host.replace(/^\[|\]$/g, ''),
      port: Number(port),
      trustDomain: parseTrustDomain(trustDomain),
    }
    const bundle = await pinned(context, { answers, terminal, source })
    const tcti = answers.given('tcti') ?? 'device:/dev/tpmrm0'
    const tokenFile = answers.given('join_token_file')
    const hash = tokenFile === undefined ? await endorsementHash(context, tcti) : undefined
    const attestor =
      tokenFile === undefined ? { tpm: { tcti } } : { join_token: { token_file: tokenFile } }
    const changes: Change[] = [
      [['trust_domain'], trustDomain],
      [['server_address'], source.host],
      [['server_port'], source.port],
      [['trust_bundle_path'], bundlePath],
    ]
    if (already['data_dir'] === undefined) changes.push([['data_dir'], '/var/lib/assay/agent'])
    if (already['admin_socket_path'] === undefined) {
      changes.push([['admin_socket_path'], '/run/assay/agent-admin/admin.sock'])
    }
    const isAsked = answers.given('tcti') !== undefined || tokenFile !== undefined
    if (isAsked || !/^node_attestor:/m.test(before)) changes.push([['node_attestor'], attestor])
    const after = checkedConfig(agentConfigSchema, { path, before }, changes)
    const content = utf8Bytes(bundleToPem(bundle))
    const isNewBundle = !dryRun && (await place(context, bundlePath, { content, mode: 0o644 }))
    await writeConfig(context, { path, before, after }, { dryRun })
    const changed = before !== after || isNewBundle
    const started =
      !dryRun &&
      !isOn(context, 'no-start') &&
      (await startUnit(context, 'assay-agent.service', { changed }))
    if (context.json) {
      return context.print(
        JSON.stringify({
          config: path,
          changed,
          dry_run: dryRun,
          started,
          bundle: bundlePath,
          authorities: bundle.x509Authorities.length,
          endorsement_key_hash: hash,
        }),
      )
    }
    if (!started && !dryRun) context.print(`start it:         assay-agent run --config ${path}`)
    if (hash !== undefined) {
      context.print(`endorsement key:  ${hash}`)
      context.print(
        `on the authority: assay inventory approve ${hash.slice(0, 16)} --node-name $(hostname)`,
      )
    }
  },
}

/** The server's bundle, once somebody has vouched for it. */
async function pinned(
  context: CommandContext,
  by: {
    readonly answers: Answers
    readonly terminal: Terminal
    readonly source: Omit<Parameters<typeof fetchBundle>[0], 'clock' | 'signal'>
  },
): Promise<Bundle> {
  const { answers, terminal, source } = by
  const given = answers.given('bundle_fingerprint')
  const wanted = given === undefined ? undefined : parseFingerprint(given)
  if (wanted === undefined && !terminal.canAsk) {
    throw new UsageError(
      "the server cannot be recognised without --bundle-fingerprint: 'assay bundle fingerprint' on the authority prints it",
    )
  }
  const { clock } = context
  const offer = await holding(context, 30, (signal) => fetchBundle({ ...source, clock, signal }))
  if (wanted !== undefined) return offer.verify(wanted)
  for (const fingerprint of offer.fingerprints) {
    context.note(`the server shows the authority ${fingerprint}`)
    const said = await terminal.ask(
      "Does 'assay bundle fingerprint' on the authority print the same (yes or no)",
      'no',
    )
    if (said === 'yes') return offer.verify(fingerprint)
  }
  throw new UsageError('no authority was confirmed, and nothing was written')
}

/** Undefined, with a note, where there is no TPM: an image is made elsewhere than it runs. */
async function endorsementHash(context: CommandContext, tcti: string): Promise<string | undefined> {
  try {
    return (await loadTpmDescription(tcti, context)).endorsementKey.hash
  } catch (error) {
    context.note(`no TPM can be used here yet: ${messageOf(error)}`)
    return undefined
  }
}
