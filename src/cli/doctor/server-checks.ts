import { existsSync } from 'node:fs'
import { access, constants, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { messageOf } from '#base/errors.ts'
import { version } from '#base/version.ts'
import { connectUnix } from '#rpc/client.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import type { ServerConfig } from '#server/config.ts'
import { inspectDatabase, schemaVersion } from '#server/offline/database-file.ts'
import type { CommandContext } from '../command.ts'
import { count, timeText } from '../print.ts'
import { type Check, type Finding, problem, warning, well } from './finding.ts'
import { clockFindings, diskFindings, output, privateFindings, unitFindings } from './machine.ts'
import { signerFindings } from './signer-checks.ts'

/** What is known of a server. */
export interface ServerSubject {
  readonly config: ServerConfig
  /** Whether it answers on its socket. */
  readonly runs: boolean
}

async function dataFindings({ config }: ServerSubject): Promise<readonly Finding[]> {
  const keys = config.key_manager.kind === 'disk' ? [config.key_manager.path] : []
  const files = [config.datastore.path, join(config.data_dir, 'server-id'), ...keys]
  return privateFindings('data_dir', config.data_dir, files)
}

/** The file itself, while no server has it open. A running one looks after it. */
async function datastoreFindings({ config, runs }: ServerSubject): Promise<readonly Finding[]> {
  const { path } = config.datastore
  if (runs) return []
  if (!existsSync(path)) return well('datastore', 'it is made at the first start')
  const damaged = (what: string): readonly Finding[] => [
    problem('datastore', `${path} is damaged: ${what}`, {
      why: 'the server does not start with it',
      remedy: 'assay restore FILE --force, with the last backup',
    }),
  ]
  let found: ReturnType<typeof inspectDatabase>
  try {
    found = inspectDatabase(path)
  } catch (error) {
    return damaged(messageOf(error))
  }
  if (found.damage !== 'ok') return damaged(found.damage)
  if (found.hasProgram) return damaged('it holds triggers or views, which no server makes')
  if (found.schemaVersion > schemaVersion) {
    return [
      problem(
        'datastore',
        `it has schema ${found.schemaVersion}, and this is assay ${version}, which knows schema ${schemaVersion}`,
        {
          why: 'a newer Assay has used it, and an older one would misread it',
          remedy: 'install the newer version, or restore a backup from before',
        },
      ),
    ]
  }
  if (!found.isOurs && found.schemaVersion > 0) return damaged('another program made it')
  if (found.trustDomains.length > 0 && !found.trustDomains.includes(config.trust_domain)) {
    return [
      problem(
        'datastore',
        `it is of ${found.trustDomains.join(', ')}, not ${config.trust_domain}`,
        {
          why: 'the server does not start with the data of another trust domain',
          remedy: 'correct trust_domain or datastore.sqlite.path in server.yaml',
        },
      ),
    ]
  }
  return well('datastore', `${path} is sound, schema ${found.schemaVersion}`)
}

async function keyManagerFindings(
  { config, runs }: ServerSubject,
  { signal, clock }: CommandContext,
): Promise<readonly Finding[]> {
  if (runs) {
    using connection = connectUnix(config.socket_path, { clock })
    const { state, detail, where } = await connection
      .client(KeysDefinition)
      .getStatus({}, { signal })
    if (state === 'ok') return well('key manager', `it signs; keys in ${where}`)
    return [
      problem('key manager', `it is ${state}: ${detail}`, {
        why: 'nothing is issued until it signs again; what is held goes on until it expires',
        remedy:
          state === 'refused' ? 'correct the PIN, then: assay hsm resume' : 'assay hsm status',
      }),
    ]
  }
  const { key_manager: manager } = config
  if (manager.kind !== 'pkcs11') return []
  const findings: Finding[] = []
  try {
    await access(manager.module, constants.R_OK)
  } catch {
    findings.push(
      problem('key manager', `the PKCS#11 library ${manager.module} is not there`, {
        why: 'the HSM is reached through it',
        remedy: "install the HSM's library, or correct key_manager.pkcs11.module",
      }),
    )
    return findings
  }
  if (manager.pin_file !== undefined) findings.push(...(await pinFindings(manager.pin_file)))
  // Lists tokens without logging in: a PIN is never tried here.
  const tokens = await output('pkcs11-tool', ['--module', manager.module, '--list-token-slots'])
  const label = 'token_label' in manager ? manager.token_label : undefined
  if (tokens !== undefined && label !== undefined && !tokens.includes(`: ${label}\n`)) {
    findings.push(
      problem('key manager', `the library shows no token '${label}'`, {
        why: 'the keys are in it',
        remedy: `pkcs11-tool --module ${manager.module} --list-token-slots shows those there are`,
      }),
    )
  }
  return findings.length > 0 ? findings : well('key manager', `${manager.module} is there`)
}

/** Never reads it. */
async function pinFindings(file: string): Promise<readonly Finding[]> {
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) === 0) return []
    return [
      problem('key manager', `the PIN's file ${file} is open to others`, {
        why: 'the server refuses to use it',
        remedy: `chmod 0400 ${file}`,
      }),
    ]
  } catch (error) {
    return [
      problem('key manager', `the PIN's file cannot be found: ${messageOf(error)}`, {
        why: 'the HSM signs for who knows the PIN alone',
        remedy: `write the PIN into ${file}, with mode 0400 and the user of the signer as its owner`,
      }),
    ]
  }
}

/** Whether the port is to be had, while no server has it. */
async function portFindings({ config, runs }: ServerSubject): Promise<readonly Finding[]> {
  const { bind_address: host, bind_port: port } = config
  if (runs) return []
  const listener = createServer()
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  listener.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
  listener.listen(port, host, () => listener.close(() => resolve(undefined)))
  const code = await promise
  if (code === undefined) return well('port', `${host} port ${port} is free`)
  return [
    problem('port', `${host} port ${port} is not to be had (${code})`, {
      why: 'agents could not connect',
      remedy: `ss -ltnp 'sport = :${port}' shows who has it; bind_port in server.yaml`,
    }),
  ]
}

/** What a running server says of itself. */
async function runningFindings(
  { config, runs }: ServerSubject,
  { signal, clock }: CommandContext,
): Promise<readonly Finding[]> {
  if (!runs) return []
  using connection = connectUnix(config.socket_path, { clock })
  const overview = await connection.client(OverviewDefinition).get({}, { signal })
  const findings: Finding[] = overview.parts
    .filter(({ ready, detail }) => !ready || detail !== '')
    .map(({ name, detail, ready }) =>
      (ready ? warning : problem)('server', `${name}: ${detail}`, {
        why: ready ? 'it works, but not for ever' : 'the server is not ready',
        remedy: 'its log says more: journalctl -u assay-server; troubleshooting.md',
      }),
    )
  if (overview.wentBack !== undefined) {
    const { agentId, agentSequence, serverSequence } = overview.wentBack
    findings.push(
      problem(
        'server',
        `the data went back: ${agentId} holds bundle ${agentSequence}, and there is ${serverSequence}`,
        {
          why: 'numbers that agents know would be given out again for something else',
          remedy: 'assay backup FILE; stop the server; assay restore FILE --force (backup.md)',
        },
      ),
    )
  }
  const at = overview.now - Math.floor(clock.now().epochMilliseconds / 1000)
  if (Math.abs(at) > 5) findings.push(clockApart(at))
  return findings.length > 0 ? findings : well('server', 'it is ready')
}

const clockApart = (seconds: number): Finding =>
  problem('clock', `the server's clock is ${Math.abs(seconds)} s off that of this machine`, {
    why: 'they are the same clock, unless the server runs under another time',
    remedy: 'look for faketime or a time namespace around assay-server',
  })

/** Versions of this program, the server and its agents. */
async function versionFindings(
  { config, runs }: ServerSubject,
  { signal, clock }: CommandContext,
): Promise<readonly Finding[]> {
  if (!runs) return well('version', `assay ${version}`)
  using connection = connectUnix(config.socket_path, { clock })
  const overview = await connection.client(OverviewDefinition).get({}, { signal })
  const request = { filter: undefined, outputMask: undefined, pageSize: 500, pageToken: '' }
  const { agents } = await connection.client(AgentDefinition).listAgents(request, { signal })
  const versions = Map.groupBy(agents, ({ agentVersion }) => agentVersion || 'unknown')
  const told = [...versions].map(([name, { length }]) => `${length} of ${name}`).join(', ')
  const findings = well('version', `server ${overview.version}; agents: ${told || 'none'}`)
  if (overview.version === version) return findings
  return [
    warning('version', `the server runs ${overview.version}, and ${version} is installed`, {
      why: 'it was not restarted after the upgrade',
      remedy: 'systemctl restart assay-server',
    }),
    ...findings,
  ]
}

/** What was begun with the authorities and waits for somebody to end it. */
async function authoritiesFindings(
  { config, runs }: ServerSubject,
  { signal, clock }: CommandContext,
): Promise<readonly Finding[]> {
  if (!runs) return []
  using connection = connectUnix(config.socket_path, { clock })
  const { keys, rotations } = await connection.client(KeysDefinition).getStatus({}, { signal })
  const begun = rotations.map(({ kind, predecessorId, startedAt, retire }) =>
    warning(
      'authorities',
      `a rotation of ${kind} ${predecessorId.slice(0, 16)} is half done since ${timeText(startedAt)}`,
      {
        why: retire
          ? 'the authority that was to be retired is trusted until it goes on'
          : 'the authority that was to be replaced still signs, or a node does not know the new one',
        remedy: `assay hsm rotate ${kind}${retire ? ' --retire' : ''}, which goes on with it and shows who is waited for`,
      },
    ),
  )
  const tainted = keys
    .filter(({ purpose, tainted: isTainted }) => isTainted && purpose !== '')
    .map(({ purpose, authorityId, svids }) =>
      warning(
        'authorities',
        `the ${purpose} authority ${authorityId.slice(0, 16)} is tainted and still trusted, with ${count(svids, 'SVID')} in use`,
        {
          why: 'who has its key can still be anybody',
          remedy: `when nothing depends on it (assay hsm status): assay authority revoke ${purpose === 'jwt' ? 'jwt' : 'x509'} --authority-id ${authorityId}`,
        },
      ),
    )
  const findings = [...begun, ...tainted]
  return findings.length > 0 ? findings : well('authorities', 'nothing is half done')
}

/** Everything that is looked at, in this order. */
export const serverChecks: readonly Check<ServerSubject>[] = [
  { name: 'unit', run: () => unitFindings('assay-server.service') },
  { name: 'data_dir', run: dataFindings },
  { name: 'disk', run: ({ config }) => diskFindings(config.data_dir) },
  { name: 'datastore', run: datastoreFindings },
  { name: 'key manager', limitSeconds: 5, run: keyManagerFindings },
  { name: 'signer', run: ({ config }) => signerFindings(config) },
  { name: 'authorities', limitSeconds: 5, run: authoritiesFindings },
  { name: 'port', run: portFindings },
  { name: 'server', limitSeconds: 5, run: runningFindings },
  { name: 'version', limitSeconds: 5, run: versionFindings },
  { name: 'clock', run: clockFindings },
]
