import { joinTokenAttestation, tpmAttestation } from './attestation.ts'
import { authorizedEntries } from './entries.ts'
import { idleAgents } from './fleet.ts'
import { jwtIssuance, x509Issuance } from './issuance.ts'
import type { Effort, Figure, Finding } from './measure.ts'
import type { OwnPair, Subject } from './subject.ts'
import { agentStart, propagation, workloadCall } from './workload-api.ts'

export interface RowOptions extends Effort {
  /** Of the idle fleet. */
  readonly agents: number
}

/** One line of the table, by its name. */
export interface Row {
  readonly work: string
  /** Undefined when this subject cannot be asked: the row takes more than SPIRE's APIs. */
  measure(subject: Subject, options: RowOptions): Promise<Figure | Finding> | undefined
}

/** A row for any pair that speaks SPIRE's and SPIFFE's APIs. */
const common = (
  work: string,
  measure: (work: string, subject: Subject, options: RowOptions) => Promise<Figure | Finding>,
): Row => ({ work, measure: (subject, options) => measure(work, subject, options) })

/** A row for Assay's own pair. */
const ownOnly = (
  work: string,
  measure: (
    work: string,
    subject: Subject,
    own: OwnPair,
    options: RowOptions,
  ) => Promise<Figure | Finding>,
): Row => ({
  work,
  measure: (subject, options) =>
    subject.own === undefined ? undefined : measure(work, subject, subject.own, options),
})

/** Every row, in the order in which they are measured. */
export const rows: readonly Row[] = [
  ownOnly('agent start → first SVID, TPM', (work, subject, own) =>
    agentStart(work, subject, own, 5),
  ),
  common('join-token attestation, a TLS connection each', joinTokenAttestation),
  ownOnly('TPM attestation, a TLS connection each, 1 in flight', tpmAttestation),
  common('BatchNewX509SVID, 1 a call', x509Issuance(1, 16)),
  common('BatchNewX509SVID, 10 a call', x509Issuance(10, 16)),
  common('BatchNewX509SVID, 100 a call, 4 in flight', x509Issuance(100, 4)),
  common('NewJWTSVID (server signs)', jwtIssuance),
  common('FetchX509SVID, first message, shared connection', workloadCall('x509 shared')),
  common('FetchX509SVID, first message, a connection each', workloadCall('x509 own')),
  common('FetchJWTSVID (agent cache hit)', workloadCall('jwt shared')),
  common("entry created → on the workload's stream", (work, subject) =>
    propagation(work, subject, 10),
  ),
  common('GetAuthorizedEntries, 20,000 entries, 4 in flight', (work, subject, effort) =>
    authorizedEntries(work, subject, { ...effort, count: 20_000 }),
  ),
  ownOnly('idle agents', (work, subject, own, { agents }) =>
    idleAgents(`${agents} ${work}`, subject, own, { agents, seconds: 20 }),
  ),
]
