import process from 'node:process'
import type { Daemon } from '../test/support/daemon.ts'
import { freePort, type Installation, type KeyManagerKind } from '../test/support/installation.ts'
import { manufactureTpm, type Swtpm, startSwtpm } from '../test/support/swtpm.ts'
import type { ServerAddress } from './agent-session.ts'

/** What is measured: Assay's own pair, or any other that speaks SPIRE's APIs. */
export interface Subject {
  readonly server: ServerAddress & { readonly pid: number }
  readonly agent: { readonly socket: string; readonly id: string; readonly pid: number }
  /** What only Assay's own pair has. */
  readonly own?: OwnPair
}

/** Assay's server and agent, started for the bench, on a node with a software TPM. */
export interface OwnPair {
  /** Powers up another TPM, which the server admits too. */
  startOtherTpm(): Promise<Swtpm>
  readonly softHsm: { readonly config: string; readonly pinFile: string } | undefined
  /** Where the server's metrics are. */
  readonly metricsUrl: string
  /** Ends the agent and starts it again; resolves when it is ready. */
  restartAgent(): Promise<void>
}

/** Starts a server and an agent of Assay, with rate limits off. `assay` ends them. */
export async function startOwnPair(
  assay: Installation,
  {
    keyManager,
    pqParameterSet,
  }: {
    readonly keyManager: KeyManagerKind
    /** Undefined: certificates are signed once. */
    readonly pqParameterSet: string | undefined
  },
): Promise<Subject> {
  if (keyManager === 'pkcs11') await assay.makeToken()
  const fingerprint = await assay.startTpm()
  const metricsPort = await freePort()
  const server = await assay.startServer(
    keyManager,
    `ratelimit: { attestation: false, signing: false }
telemetry: { prometheus: { port: ${metricsPort} } }
${pqParameterSet === undefined ? '' : `pq_signatures: hybrid\npq_parameter_set: ${pqParameterSet}\n`}`,
  )
  await assay.allowTpm(fingerprint, 'bench')
  let agent = await assay.startAgent()
  return {
    server: {
      host: '127.0.0.1',
      port: assay.serverPort,
      socket: assay.at('server.sock'),
      pid: server.pid,
    },
    agent: {
      socket: assay.workloadSocket,
      id: assay.id(`/spire/agent/tpm/${fingerprint}`),
      get pid() {
        return agent.pid
      },
    },
    own: {
      startOtherTpm: () => startOtherTpm(assay),
      softHsm:
        keyManager === 'pkcs11'
          ? { config: assay.at('hsm/softhsm2.conf'), pinFile: assay.at('hsm/pin') }
          : undefined,
      metricsUrl: `http://127.0.0.1:${metricsPort}/metrics`,
      async restartAgent() {
        await (agent satisfies Daemon)[Symbol.asyncDispose]()
        agent = await assay.startAgent()
      },
    },
  }
}

async function startOtherTpm(assay: Installation): Promise<Swtpm> {
  const directory = assay.at('tpm-2')
  await manufactureTpm(directory, { name: 'node-2', makerDirectory: assay.at('tpm/maker') })
  const tpm = await startSwtpm(directory)
  const fingerprint = await assay.assay('tpm', 'fingerprint', '--tcti', tpm.tcti)
  await assay.allowTpm(fingerprint.trim(), 'bench-2')
  return tpm
}

/** The user whose processes the bench's identities are for: its own. */
export const ownSelector = `uid:${process.getuid?.()}`
