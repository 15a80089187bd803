import { existsSync } from 'node:fs'
import { agentConfigSchema } from '#agent/config.ts'
import { utf8Bytes } from '#base/bytes.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { ConfigError } from '#config/config-error.ts'
import { parseConfig } from '#config/parse-config.ts'
import type { Schema } from '#config/schema.ts'
import { connectUnix } from '#rpc/client.ts'
import { configWarnings, type ServerConfig, serverConfigSchema } from '#server/config.ts'
import { type Bundle, bundleToPem } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { loadTpmDescription } from '#tpm/device/description.ts'
import { authorityFingerprints } from '../authority-fingerprints.ts'
import {
  type Command,
  type CommandContext,
  isOn,
  type Option,
  optional,
  UsageError,
} from '../command.ts'
import { softHsmFindings } from '../doctor/signer-checks.ts'
import { holding } from '../hold.ts'
import { Answers, agentAnswersSchema, oneOfWords, serverAnswersSchema } from '../setup/answers.ts'
import { place, startUnit, textOf, writeConfig } from '../setup/apply.ts'
import { type Change, editConfig, valueIn } from '../setup/edit-config.ts'
import { type Asking, askKeyPlace, askPinToKeep } from '../setup/key-manager.ts'
import { keepPin, type PinStore, type PinToKeep } from '../setup/pin.ts'
import { fetchBundle, parseFingerprint } from '../setup/pinned-bundle.ts'
import { handOver, type SignerPlace, signerPlace, signerSocket } from '../setup/signer.ts'
import { openTerminal, type Terminal } from '../setup/terminal.ts'

const sharedOptions: readonly Option[] = [
  { name: 'answers', value: 'FILE', summary: 'YAML with the answers, by the same names with _' },
  { name: 'dry-run', summary: 'show what would be written, and write nothing' },
  { name: 'no-start', summary: 'do not start the service' },
]

/** What a configuration says, as far as it can be read. */
function present(text: string): Readonly<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const [, name = '', value = ''] of text.matchAll(/^([a-z_]+):[ \t]+["']?([^\s"'{[#]+)/gm)) {
    found[name] = value
  }
  return found
}

/** The new text, checked as the daemon will check it. */
function checked(
  schema: Schema<unknown>,
  file: { readonly path: string; readonly before: string },
  changes: readonly Change[],
): string {
  let after: string
  try {
    after = editConfig(file.before, changes)
    parseConfig(schema, after, { file: file.path })
  } catch (error) {
    if (!(error instanceof ConfigError) && !(error instanceof SyntaxError)) throw error
    throw new UsageError(`cannot use this configuration: ${error.message}`, { cause: error })
  }
  return after
}

function requireSame(name: string, before: string | undefined, now: string, path: string): void {
  if (before === undefined || before === now) return
  throw new UsageError(
    `${path} is for the ${name.replaceAll('_', ' ')} ${before}, and not ${now}: it cannot be changed; for another one use another --config`,
  )
}

/** What is to be said of the keys, and the PIN that is to be kept for them. */
interface ServerKeys {
  readonly pin: PinToKeep | undefined
  /** Who uses the HSM; undefined: there is none. */
  readonly signer: SignerPlace | undefined
  /** Undefined: the PIN stays where it is. */
  changes(store: PinStore | undefined): readonly Change[]
}

async function serverKeys(path: string, before: string, asking: Asking): Promise<ServerKeys> {
  const { answers } = asking
  const asked = answers.given('signer')
  if (asked !== undefined) oneOfWords('signer', 'service', 'server')(asked)
  const signer = await signerPlace(asked, { path, before })
  const signerChange: Change = [
    ['signer_socket_path'],
    signer === 'service' ? (valueIn(before, ['signer_socket_path']) ?? signerSocket) : undefined,
  ]
  const isAsked = answers.given('keys') !== undefined || answers.given('module') !== undefined
  if (!isAsked && /^key_manager:/m.test(before)) {
    const isPkcs11 = valueIn(before, ['key_manager', 'pkcs11']) !== undefined
    return {
      pin: undefined,
      signer: isPkcs11 ? signer : undefined,
      changes: () => (isPkcs11 ? [signerChange] : []),
    }
  }
  const keys = await askKeyPlace(asking)
  if (keys.kind === 'disk') {
    const change: Change = [['key_manager'], { disk: {} }]
    const isDisk = valueIn(before, ['key_manager', 'disk']) !== undefined
    return { pin: undefined, signer: undefined, changes: () => (isDisk ? [] : [change]) }
  }
  const file = path.replace(/[^/]*$/, 'hsm-pin')
  const present = valueIn(before, ['key_manager', 'pkcs11'])
  const {
    pin_file: had,
    uri: _,
    ...settings
  } = (present ?? {}) as Readonly<Record<string, unknown>>
  return {
    pin: await askPinToKeep(asking, { file, signer }),
    signer,
    changes(store) {
      const kept = had ?? (existsSync(file) ? file : undefined)
      const pinFile = store === undefined ? kept : store === 'file' ? file : undefined
      const token = { ...settings, module: keys.module, token_label: keys.label }
      const pkcs11 = { ...token, ...(pinFile !== undefined && { pin_file: pinFile }) }
      return [[['key_manager'], { pkcs11 }], signerChange]
    },
  }
}

/** Sees to it that the signer can use the HSM, and who else could no more. @returns whether anything changed. */
async function signerHas(
  signer: SignerPlace | undefined,
  { key_manager: manager }: ServerConfig,
  { context, dryRun }: { readonly context: CommandContext; readonly dryRun: boolean },
): Promise<boolean> {
  if (signer === undefined || manager.kind !== 'pkcs11') return false
  const changed = await handOver(context, signer, { pinFile: manager.pin_file, dryRun })
  if (signer === 'service') {
    for (const { what, remedy } of await softHsmFindings(manager)) {
      context.note(`warning: ${what}: ${remedy}`)
    }
  }
  return changed
}

/** None while the server does not run. */
async function fingerprintsAt(socket: string, context: CommandContext): Promise<readonly string[]> {
  const { clock } = context
  try {
    return await holding(context, 10, async (signal) => {
      using connection = connectUnix(socket, { clock })
      await connection.connect({ signal })
      return await authorityFingerprints(connection, signal)
    })
  } catch (error) {
    context.signal.throwIfAborted()
    if (!(error instanceof AssayError)) throw error
    return []
  }
}

const server: Command = {
  name: 'setup server',
  summary: 'write server.yaml, keep the PIN, start the server, and say what to do on the nodes',
  options: [
    { name: 'trust-domain', value: 'NAME', summary: 'what every identity begins with; for good' },
    {
      name: 'address',
      value: 'HOST',
      summary: 'how nodes reach this machine; for what is printed',
    },
    {
      name: 'keys',
      value: 'WHERE',
      choices: ['pkcs11', 'disk'],
      summary: 'an HSM, or a file for trials',
    },
    { name: 'module', value: 'FILE', summary: "the HSM's PKCS#11 library" },
    { name: 'token-label', value: 'LABEL', summary: 'the token in it' },
    {
      name: 'pin-file',
      value: 'FILE',
      summary: 'where the PIN is now; it is asked for when absent',
    },
    {
      name: 'pin-store',
      value: 'HOW',
      choices: ['credential', 'file'],
      summary:
        'keep it encrypted by systemd, or in a file of mode 0400; credential where systemd runs',
    },
    {
      name: 'signer',
      value: 'WHO',
      choices: ['service', 'server'],
      summary:
        'who uses the HSM: a user of its own (service; where the packages are), or the server',
    },
    { name: 'endorsement-ca', value: 'PATH', summary: 'certificates of TPM makers, PEM' },
    {
      name: 'allow',
      value: 'WHO',
      choices: ['inventory', 'endorsement_ca'],
      summary: 'which TPMs may join: inventory (approved ones) or endorsement_ca (of these makers)',
    },
    { name: 'config', value: 'FILE', summary: '/etc/assay/server.yaml when absent' },
    ...sharedOptions,
  ],
  details: `
Asks on a terminal for what no option and no answers give; a secret is asked for or read from a file, and never an
argument. Can be run again: it shows what changes, and keeps everything else that stands in the file. With
--signer alone it hands the PIN over.`,
  async run(context) {
    const terminal = openTerminal(context.signal)
    const answers = await Answers.load(context, serverAnswersSchema, terminal)
    const path = optional(context, 'config') ?? '/etc/assay/server.yaml'
    const dryRun = isOn(context, 'dry-run')
    const before = await textOf(path)
    const already = present(before)
    const trustDomain = await answers.get('trust_domain', {
      question: 'The name of the trust domain, as example.org',
      otherwise: already['trust_domain'],
      check: parseTrustDomain,
    })
    requireSame('trust_domain', already['trust_domain'], trustDomain, path)
    const changes: Change[] = [[['trust_domain'], trustDomain]]
    const keys = await serverKeys(path, before, { answers, terminal, context })
    const endorsement = answers.given('endorsement_ca')
    const allow = answers.given('allow')
    if (endorsement !== undefined)
      changes.push([['node_attestors', 'tpm', 'endorsement_ca'], endorsement])
    if (allow !== undefined || !/^node_attestors:/m.test(before)) {
      changes.push([['node_attestors', 'tpm', 'allow'], allow ?? 'inventory'])
    }
    if (already['data_dir'] === undefined) changes.push([['data_dir'], '/var/lib/assay/server'])
    // Nothing is kept for a server whose configuration is wrong.
    checked(serverConfigSchema, { path, before }, [...changes, ...keys.changes('credential')])
    const kept = keys.pin && (await keepPin(context, keys.pin, { dryRun }))
    changes.push(...keys.changes(kept?.store))
    const after = checked(serverConfigSchema, { path, before }, changes)
    await writeConfig(context, { path, before, after }, { dryRun })
    const config = parseConfig(serverConfigSchema, after, { file: path })
    const isOther = before !== after || answers.given('signer') !== undefined
    const signer = isOther ? keys.signer : undefined
    const isHandedOver = await signerHas(signer, config, { context, dryRun })
    for (const warning of configWarnings(config)) context.note(`warning: ${warning}`)
    const changed = before !== after || kept?.changed === true || isHandedOver
    const started =
      !dryRun &&
      !isOn(context, 'no-start') &&
      (await startUnit(context, 'assay-server.service', { changed }))
    const socket = already['socket_path'] ?? '/run/assay/server.sock'
    const fingerprints = dryRun ? [] : await fingerprintsAt(socket, context)
    const address = answers.given('address') ?? 'THIS-HOST'
    const onNode = `assay setup agent --trust-domain ${trustDomain} --server-address ${address} --bundle-fingerprint ${fingerprints[0] ?? '$(on the authority: assay bundle fingerprint)'}`
    if (context.json) {
      return context.print(
        JSON.stringify({
          config: path,
          changed,
          dry_run: dryRun,
          started,
          pin_store: kept?.store,
          signer: keys.signer,
          fingerprints,
          on_nodes: onNode,
        }),
      )
    }
    if (!started && !dryRun) context.print(`start it:     assay-server run --config ${path}`)
    context.print(`on each node: ${onNode}`)
    context.print(
      'then here:    assay inventory pending; assay inventory approve HASH --node-name NAME',
    )
  },
}

const hostPort = /^(\[[0-9a-f:]+\]|[^:]+)(?::(\d{1,5}))?$/i

const agent: Command = {
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
    const terminal = openTerminal(context.signal)
    const answers = await Answers.load(context, agentAnswersSchema, terminal)
    const path = optional(context, 'config') ?? '/etc/assay/agent.yaml'
    const dryRun = isOn(context, 'dry-run')
    const before = await textOf(path)
    const already = present(before)
    const name = await answers.get('trust_domain', {
      question: 'The name of the trust domain',
      otherwise: already['trust_domain'],
      check: parseTrustDomain,
    })
    requireSame('trust_domain', already['trust_domain'], name, path)
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
      trustDomain: parseTrustDomain(name),
    }
    const bundle = await pinned(context, { answers, terminal, source })
    const tcti = answers.given('tcti') ?? 'device:/dev/tpmrm0'
    const tokenFile = answers.given('join_token_file')
    const hash = tokenFile === undefined ? await endorsementHash(context, tcti) : undefined
    const attestor =
      tokenFile === undefined ? { tpm: { tcti } } : { join_token: { token_file: tokenFile } }
    const changes: Change[] = [
      [['trust_domain'], name],
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
    const after = checked(agentConfigSchema, { path, before }, changes)
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

export const commands: readonly Command[] = [server, agent]
