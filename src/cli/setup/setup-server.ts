import { dirname, resolve } from 'node:path'
import { AssayError } from '#base/errors.ts'
import { parseConfig } from '#config/parse-config.ts'
import { connectUnix } from '#rpc/client.ts'
import { configWarnings, serverConfigSchema } from '#server/config.ts'
import { authorityFingerprints } from '../authority-fingerprints.ts'
import { type Command, type CommandContext, isOn, UsageError } from '../command.ts'
import { holding } from '../hold.ts'
import { serverAnswersSchema } from './answers.ts'
import { startUnit, writeConfig } from './apply.ts'
import { beginSetup, sharedOptions } from './beginning.ts'
import { checkedConfig } from './checked-config.ts'
import { type Change, valueIn } from './edit-config.ts'
import type { Asking } from './key-manager.ts'
import { checkMakers, withoutMakers } from './makers.ts'
import { keepPin } from './pin.ts'
import { serverKeys, signerHas } from './server-keys.ts'

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

/** Where certificates of TPM makers are, by a new answer or by the file that is there; undefined: there are none. */
async function askMakers(
  { before, path }: { readonly before: string; readonly path: string },
  { answers, terminal }: Asking,
): Promise<{ readonly path: string; readonly isNew: boolean } | undefined> {
  const had = valueIn(before, ['node_attestors', 'tpm', 'endorsement_ca'])
  if (answers.given('endorsement_ca') === undefined) {
    if (typeof had === 'string') return { path: resolve(dirname(path), had), isNew: false }
    if (!terminal.canAsk) return undefined
  }
  const answer = await answers.get('endorsement_ca', {
    question: "Certificates of the TPMs' makers, a PEM file or a directory, or none",
    otherwise: 'none',
  })
  return answer === 'none' ? undefined : { path: resolve(answer), isNew: true }
}

/** `assay setup server`. */
export const setupServer: Command = {
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
    {
      name: 'endorsement-ca',
      value: 'PATH',
      summary: 'certificates of TPM makers, PEM, a file or a directory; none when absent',
    },
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
    const beginning = await beginSetup(context, {
      answersSchema: serverAnswersSchema,
      otherwisePath: '/etc/assay/server.yaml',
      question: 'The name of the trust domain, as example.org',
    })
    const { terminal, answers, path, dryRun, before, already, trustDomain } = beginning
    const changes: Change[] = [[['trust_domain'], trustDomain]]
    const keys = await serverKeys(path, before, { answers, terminal, context })
    const allow = answers.given('allow')
    const makers = await askMakers({ before, path }, { answers, terminal, context })
    if (makers === undefined) {
      context.note(withoutMakers)
      if (allow === 'endorsement_ca') {
        throw new UsageError("allow is 'endorsement_ca', which needs --endorsement-ca")
      }
    } else {
      await checkMakers(context, makers.path)
      if (makers.isNew) changes.push([['node_attestors', 'tpm', 'endorsement_ca'], makers.path])
    }
    if (allow !== undefined || !/^node_attestors:/m.test(before)) {
      changes.push([['node_attestors', 'tpm', 'allow'], allow ?? 'inventory'])
    }
    if (already['data_dir'] === undefined) changes.push([['data_dir'], '/var/lib/assay/server'])
    // Nothing is kept for a server whose configuration is wrong.
    checkedConfig(serverConfigSchema, { path, before }, [...changes, ...keys.changes('credential')])
    const kept = keys.pin && (await keepPin(context, keys.pin, { dryRun }))
    changes.push(...keys.changes(kept?.store))
    const after = checkedConfig(serverConfigSchema, { path, before }, changes)
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
