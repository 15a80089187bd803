import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  AcceptClockRequest,
  Key,
  RotationProgress as ProgressMessage,
  ResumeRequest,
  RotateRequest,
} from '#rpc/gen/assay/server/v1/keys.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { AuthorityState } from '../authority/authority-state.ts'
import { maxNamed, type RotationProgress } from '../authority/guided-rotation.ts'
import type { Holders } from '../authority/holders.ts'
import type { AuthorityKindName } from '../authority/journal.ts'
import type {
  KeyManager,
  KeyManagerStatus,
  KeyPlace,
  SigningKey,
} from '../plugin/key-manager/key-manager.ts'
import type { UpstreamAuthority } from '../plugin/upstream-authority/upstream-authority.ts'
import { notesOf } from './call-notes.ts'
import { malformed } from './messages.ts'

export interface KeysServiceDependencies {
  readonly keyManager: KeyManager
  readonly upstreamAuthority: Pick<UpstreamAuthority, 'resume'> | undefined
  readonly authorities: Pick<
    AuthorityManager,
    | 'states'
    | 'keysInPreparation'
    | 'health'
    | 'upstream'
    | 'acceptClock'
    | 'round'
    | 'rotate'
    | 'rotations'
    | 'bundleSequenceNumber'
  >
  readonly holdings: Pick<Holders, 'survey' | 'dependents'>
  readonly clock: Clock
}

/** `assay.server.v1.Keys`: what the key manager holds, whether it works, and rotation. */
export function newKeysService(dependencies: KeysServiceDependencies) {
  const { keyManager, upstreamAuthority, authorities, holdings, clock } = dependencies
  return {
    getStatus: async () => status(),

    async resume(_request: ResumeRequest, context: CallContext) {
      if (keyManager.resume === undefined && upstreamAuthority?.resume === undefined) {
        throw new AssayError('failed-precondition', 'this key manager has no PIN to try again', {
          reason: 'nothing-to-resume',
        })
      }
      const before = keyManager.status().state
      // A token that refuses again does not keep the other from being asked.
      const results = await Promise.allSettled([
        keyManager.resume?.(),
        upstreamAuthority?.resume?.(),
      ])
      notesOf(context).details = { before, state: keyManager.status().state }
      // A server that started without its keys has had no authority to sign with until now.
      await authorities.round()
      for (const result of results) if (result.status === 'rejected') throw result.reason
      return status()
    },

    async acceptClock(_request: AcceptClockRequest, context: CallContext) {
      const now = Math.floor(clock.now().epochMilliseconds / 1000)
      await authorities.acceptClock()
      notesOf(context).details = { now }
      return { now }
    },

    async *rotate(request: RotateRequest, context: CallContext): AsyncGenerator<ProgressMessage> {
      const kind = kindOf(request.kind)
      const { retire, force, afterSeconds, predecessorId } = request
      if (afterSeconds !== undefined && (afterSeconds < 0 || force)) {
        throw malformed('after_seconds', force ? 'with force there is no wait' : 'it is negative')
      }
      const notes = notesOf(context)
      notes.details = { kind, retire, force, afterSeconds }
      const wishes = { retire, force, afterSeconds, predecessorId }
      for await (const progress of authorities.rotate(kind, wishes, context.signal)) {
        notes.subject = progress.successorId || progress.predecessorId
        notes.details = {
          ...notes.details,
          step: progress.step,
          predecessor: progress.predecessorId,
        }
        yield progressMessage(progress)
      }
    },
  }

  /** The key manager's word; when it has nothing to say, whatever else keeps the authorities from issuing. */
  function signing(): KeyManagerStatus {
    const status = keyManager.status()
    const { healthy, canIssue, detail } = authorities.health()
    if (status.state !== 'ok') return status
    // What is signed now is good; it is the time to come that needs somebody.
    if (healthy) return { ...status, detail: authorities.upstream()?.problem ?? '' }
    return { ...status, state: canIssue ? 'degraded' : 'down', detail }
  }

  function status() {
    const states = [...authorities.states('x509'), ...authorities.states('jwt')]
    const named = new Set(states.map(({ keyId }) => keyId))
    const inPreparation = authorities.keysInPreparation()
    return {
      ...signing(),
      pqWhere: keyManager.status().alternativeWhere ?? '',
      keys: [
        ...states.map(authorityMessage),
        ...keyManager
          .keys()
          .filter(({ id }) => !named.has(id))
          .map((key) => ({
            ...orphanMessage(key, keyManager.place?.(key.id)),
            ...preparationMessage(inPreparation.get(key.id)),
          })),
      ],
      propagation: propagation(),
      rotations: authorities.rotations().map(({ kind, rotation }) => ({
        kind,
        predecessorId: rotation.predecessorId,
        startedAt: rotation.startedAtSeconds,
        retire: rotation.retire,
      })),
    }
  }

  function propagation() {
    const bundleSequenceNumber = authorities.bundleSequenceNumber()
    const { live, lacking, away } = holdings.survey(bundleSequenceNumber)
    return {
      bundleSequenceNumber,
      live,
      acknowledged: live - lacking.length,
      lacking: lacking.slice(0, maxNamed),
      away,
    }
  }

  function authorityMessage(state: AuthorityState): Key {
    const { authorityId, publishedId, issuedAtSeconds } = state
    const place = keyManager.place?.(state.keyId)
    // Of several below one root the active one stands for all: agents tell roots apart.
    const isCounted =
      state.kind === 'x509' && (state.state === 'active' || authorityId === publishedId)
    const dependents = isCounted
      ? holdings.dependents({ authorityId: publishedId, sinceSeconds: issuedAtSeconds })
      : undefined
    return {
      id: state.keyId,
      type: state.keyType,
      purpose: purposes[state.kind],
      state: state.state,
      authorityId,
      createdAt: issuedAtSeconds,
      expiresAt: state.expiresAtSeconds,
      nextEvent: state.nextEvent,
      nextEventAt: state.nextEventAtSeconds,
      nodes: dependents === undefined ? 0 : dependents.nodes.length + dependents.unknown.length,
      svids: Math.min(dependents?.svids ?? 0, maxUint32),
      signedUntil: state.signedUntilSeconds,
      mintedUntil: state.mintedUntilSeconds,
      tainted: state.tainted,
      // In a token that was never open since the start it is not known to be destroyed.
      isPresent: keyManager.key(state.keyId) !== undefined || place?.isUp === false,
      where: place?.where ?? '',
      away: place?.isUp === false,
      pqParameterSet: keyManager.key(state.keyId)?.alternative?.parameterSet ?? '',
    }
  }
}

/** What nodes report is theirs; the sum must fit the message. */
const maxUint32 = 2 ** 32 - 1

const purposes: Readonly<Record<AuthorityKindName, string>> = { x509: 'x509-ca', jwt: 'jwt' }

/** For a moment, or for as long as an upstream does not answer, the key is there and the authority is not. */
const preparationMessage = (kind: AuthorityKindName | undefined) =>
  kind === undefined ? {} : { purpose: purposes[kind], state: 'preparing' }

/** A key that no authority of this server has. */
const orphanMessage = ({ id, type, alternative }: SigningKey, place?: KeyPlace): Key => ({
  where: place?.where ?? '',
  away: place?.isUp === false,
  id,
  type,
  purpose: '',
  state: '',
  authorityId: '',
  createdAt: 0,
  expiresAt: 0,
  nextEvent: '',
  nextEventAt: 0,
  nodes: 0,
  svids: 0,
  signedUntil: 0,
  mintedUntil: 0,
  tainted: false,
  isPresent: true,
  pqParameterSet: alternative?.parameterSet ?? '',
})

function kindOf(text: string): AuthorityKindName {
  if (text === 'x509' || text === 'jwt') return text
  throw malformed('kind', `${JSON.stringify(text.slice(0, 32))} is neither x509 nor jwt`)
}

const progressMessage = (progress: RotationProgress): ProgressMessage => ({
  kind: progress.kind,
  step: progress.step,
  startedAt: progress.startedAtSeconds,
  predecessorId: progress.predecessorId,
  successorId: progress.successorId,
  nodes: progress.nodes,
  nodesDone: progress.nodesDone,
  waitingFor: [...progress.waitingFor],
  away: progress.away,
  svids: Math.min(progress.svids, maxUint32),
  until: progress.untilSeconds,
  detail: progress.detail,
})
