import { lookup } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import type { AgentConfig } from '#agent/config.ts'
import { AssayError, messageOf } from '#base/errors.ts'
import { version } from '#base/version.ts'
import { describe, parseCertificate } from '#pki/certificate.ts'
import { connectUnix } from '#rpc/client.ts'
import { DiagnosisDefinition, type Status } from '#rpc/gen/assay/agent/v1/diagnosis.ts'
import { offeredGroups, peerChain } from '#rpc/tls.ts'
import { type Bundle, bundleFromPem } from '#spiffe/bundle.ts'
import { parseBundle } from '#spiffe/bundle-json.ts'
import { serverId } from '#spiffe/spiffe-id.ts'
import { spiffeIdOf, verifyX509Svid } from '#spiffe/x509-svid.ts'
import { loadTpmDescription } from '#tpm/device/description.ts'
import { type DeviceProblem, deviceProblems } from '#tpm/device/problems.ts'
import { type CommandContext, nowSeconds } from '../command.ts'
import { timeText } from '../print.ts'
import { clockText } from '../wire.ts'
import { type Check, type Finding, problem, warning, well } from './finding.ts'
import {
  clockFindings,
  diskFindings,
  kernelFindings,
  privateFindings,
  socketFindings,
  unitFindings,
} from './machine.ts'

/** What is known of an agent. */
export interface AgentSubject {
  readonly config: AgentConfig
}

const connectMs = 10_000

async function socketsFindings({ config }: AgentSubject): Promise<readonly Finding[]> {
  const workload = await socketFindings('sockets', config.socket_path, 'assay-agent')
  if (config.admin_socket_path === undefined) return workload.findings
  const admin = await socketFindings('sockets', config.admin_socket_path, 'assay-agent')
  return [...workload.findings, ...admin.findings]
}

async function tpmFindings(
  { config }: AgentSubject,
  { clock, random }: CommandContext,
): Promise<readonly Finding[]> {
  if (config.node_attestor.kind !== 'tpm') return []
  try {
    const tpm = await loadTpmDescription(config.node_attestor.tcti, { clock, random })
    return well('tpm', `it works; endorsement key ${tpm.endorsementKey.hash}`)
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    const known = deviceProblems[error.reason as DeviceProblem]
    return [
      problem('tpm', known?.meaning ?? error.message, {
        why: 'the node proves itself by it',
        remedy: known?.remedy ?? 'assay tpm doctor',
      }),
    ]
  }
}

async function dnsFindings({ config }: AgentSubject): Promise<readonly Finding[]> {
  const { server_address: host } = config
  if (isIP(host) !== 0) return []
  try {
    const found = await lookup(host, { all: true })
    return well('dns', `${host} is ${found.map(({ address }) => address).join(', ')}`)
  } catch (error) {
    return [
      problem('dns', `${host} is not found: ${messageOf(error)}`, {
        why: 'the agent cannot reach its server',
        remedy: `getent ahosts ${host}; /etc/resolv.conf, or an address in server_address`,
      }),
    ]
  }
}

/** The bundle that the agent would go by: what it kept from last time, else the operator's. */
async function loadTrust({ config }: AgentSubject): Promise<Bundle | undefined> {
  try {
    return parseBundle(await readFile(join(config.data_dir, 'bundle.json')), config.trust_domain)
  } catch {
    if (config.trust_bundle_path === undefined) return undefined
    const text = await readFile(config.trust_bundle_path, 'utf8')
    return config.trust_bundle_format === 'pem'
      ? bundleFromPem(config.trust_domain, text)
      : parseBundle(text, config.trust_domain)
  }
}

async function serverFindings(
  subject: AgentSubject,
  context: CommandContext,
): Promise<readonly Finding[]> {
  const { config } = subject
  const at = `${config.server_address} port ${config.server_port}`
  let chain: readonly Uint8Array[]
  try {
    chain = await presentedChain(config)
  } catch (error) {
    return [
      problem('server', `${at} cannot be reached: ${messageOf(error)}`, {
        why: 'the agent gets nothing new; what it holds is served until it expires',
        remedy: `is assay-server running there (assay doctor server), and is the way open? ss -ltn, firewall; server_address and server_port in agent.yaml`,
      }),
    ]
  }
  const bundle = await loadTrust(subject)
  if (bundle === undefined)
    return well('server', `${at} answers; there is no bundle yet to verify it by`)
  return verifyFindings(chain, { at, bundle, config, nowSeconds: nowSeconds(context) })
}

function verifyFindings(
  chain: readonly Uint8Array[],
  against: {
    readonly at: string
    readonly bundle: Bundle
    readonly config: AgentConfig
    readonly nowSeconds: number
  },
): readonly Finding[] {
  const { at, bundle, config, nowSeconds: now } = against
  const [der] = chain
  if (der === undefined) {
    return [
      problem('server', `${at} shows no certificate`, {
        why: 'it is no assay-server',
        remedy: 'correct server_address and server_port in agent.yaml',
      }),
    ]
  }
  const leaf = parseCertificate(der, { lenient: true })
  try {
    const { spiffeId, path } = verifyX509Svid({
      certificates: chain,
      bundles: (name) => (name === config.trust_domain ? bundle : undefined),
      nowSeconds: now,
    })
    if (spiffeId !== serverId(config.trust_domain)) {
      return [
        problem('server', `${at} is ${spiffeId}, not ${serverId(config.trust_domain)}`, {
          why: 'the agent talks to its server alone',
          remedy: 'correct server_address in agent.yaml',
        }),
      ]
    }
    const authority = path.at(-1)
    return well(
      'server',
      `${at} is ${spiffeId}, by ${authority === undefined ? 'its authority' : describe(authority)}, until ${timeText(leaf.notAfterSeconds)}`,
    )
  } catch (error) {
    if (!(error instanceof AssayError)) throw error
    const early = leaf.notBeforeSeconds > now
    const late = leaf.notAfterSeconds <= now
    return [
      problem('server', `the certificate of ${at} is refused: ${error.message}`, {
        why: `it is ${shownId(der)}, issued by ${leaf.authorityKeyId?.toHex() ?? 'nobody named'}, valid from ${timeText(leaf.notBeforeSeconds)} to ${timeText(leaf.notAfterSeconds)}; trusted are ${bundle.x509Authorities.length} authorities of ${bundle.trustDomain}`,
        remedy: early
          ? "this machine's clock is behind the server's: date -u on both"
          : late
            ? "this machine's clock is ahead of the server's, or the server has no authority that signs: date -u on both, assay hsm status there"
            : `on the authority: assay bundle show > bundle.pem; put it at ${config.trust_bundle_path ?? 'trust_bundle_path'} and remove ${join(config.data_dir, 'bundle.json')}`,
      }),
    ]
  }
}

function shownId(der: Uint8Array): string {
  try {
    return spiffeIdOf(parseCertificate(der, { lenient: true }))
  } catch {
    return 'without a SPIFFE ID'
  }
}

/** Connects as an agent that has no identity yet would, and says nothing. */
async function presentedChain(config: AgentConfig): Promise<readonly Uint8Array[]> {
  const { promise, resolve, reject } = Promise.withResolvers<readonly Uint8Array[]>()
  const socket: TLSSocket = connect(
    {
      host: config.server_address,
      port: config.server_port,
      // Nobody is believed here: the chain is what is wanted.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      minVersion: 'TLSv1.3',
      ALPNProtocols: ['h2'],
      ecdhCurve: offeredGroups({
        profile: config.crypto_profile,
        requirePqKem: config.require_pq_kem,
      }).join(':'),
    },
    () => resolve(peerChain(socket)),
  )
  socket.setTimeout(connectMs, () => reject(new Error(`no answer within ${connectMs / 1000} s`)))
  socket.once('error', reject)
  try {
    return await promise
  } finally {
    socket.destroy()
  }
}

/** What a running agent says of itself. */
async function agentFindings(
  { config }: AgentSubject,
  { signal, clock }: CommandContext,
): Promise<readonly Finding[]> {
  const path = config.admin_socket_path
  if (path === undefined) {
    return [
      warning('agent', 'admin_socket_path is not set', {
        why: 'assay why, status and refusal list cannot ask the agent',
        remedy: 'admin_socket_path: /run/assay/agent-admin/admin.sock in agent.yaml',
      }),
    ]
  }
  if ((await socketFindings('agent', path, 'assay-agent')).state !== 'answers') return []
  using connection = connectUnix(path, { clock })
  const status = await connection.client(DiagnosisDefinition).getStatus({}, { signal })
  const older = runsOlder(status.version)
  if (status.state === 'ready') return [...well('agent', readyText(status)), ...older]
  return [
    ...older,
    problem('agent', `it is ${status.state}: ${status.detail || 'it has just begun'}`, {
      why: 'workloads get what it holds already, and nothing new',
      remedy: 'troubleshooting.md has the reason; the log: journalctl -u assay-agent',
    }),
  ]
}

function readyText(status: Status): string {
  return [`${status.agentId} is ready`, clockText(status)].filter((text) => text !== '').join('; ')
}

/** Says that the agent was not restarted after an upgrade. */
export function runsOlder(running: string): readonly Finding[] {
  if (running === version || running === '') return []
  return [
    warning('agent', `the agent that runs is ${running}, and ${version} is installed`, {
      why: 'it was not restarted after an upgrade',
      remedy: 'systemctl restart assay-agent: workloads keep what they have, and their calls wait',
    }),
  ]
}

/** Everything that is looked at, in this order. */
export const agentChecks: readonly Check<AgentSubject>[] = [
  { name: 'unit', run: () => unitFindings('assay-agent.service') },
  {
    name: 'data_dir',
    run: ({ config }) =>
      privateFindings('data_dir', config.data_dir, [
        join(config.data_dir, 'bundle.json'),
        join(config.data_dir, 'agent-identity.json'),
      ]),
  },
  { name: 'disk', run: ({ config }) => diskFindings(config.data_dir) },
  { name: 'kernel', run: kernelFindings },
  { name: 'sockets', run: socketsFindings },
  { name: 'tpm', run: tpmFindings },
  { name: 'dns', run: dnsFindings },
  { name: 'server', run: serverFindings },
  { name: 'agent', limitSeconds: 5, run: agentFindings },
  { name: 'version', run: () => Promise.resolve(well('version', `assay ${version}`)) },
  { name: 'clock', run: clockFindings },
]
