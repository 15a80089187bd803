import type { Clock } from '#base/clock.ts'
import { AssayError } from '#base/errors.ts'
import type { CallContext } from '#rpc/call.ts'
import type { AcceptClockRequest, Key } from '#rpc/gen/assay/server/v1/keys.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { AuthorityState } from '../authority/authority-state.ts'
import type { KeyManager, KeyManagerStatus, SigningKey } from '../plugin/key-manager/key-manager.ts'
import { notesOf } from './call-notes.ts'

export interface KeysServiceDependencies {
  readonly keyManager: KeyManager
  readonly authorities: Pick<AuthorityManager, 'states' | 'health' | 'acceptClock'>
  readonly clock: Clock
}

/** `assay.server.v1.Keys`: what the key manager holds and whether it works. */
export function newKeysService({ keyManager, authorities, clock }: KeysServiceDependencies) {
  return {
    getStatus: async () => status(),

    async resume() {
      if (keyManager.resume === undefined) {
        throw new AssayError('failed-precondition', 'this key manager has no PIN to try again', {
          reason: 'nothing-to-resume',
        })
      }
      await keyManager.resume()
      return status()
    },

    async acceptClock(_request: AcceptClockRequest, context: CallContext) {
      const now = Math.floor(clock.now().epochMilliseconds / 1000)
      await authorities.acceptClock()
      notesOf(context).details = { now }
      return { now }
    },
  }

  /** The key manager's word; when it has nothing to say, whatever else keeps the authorities from issuing. */
  function signing(): KeyManagerStatus {
    const status = keyManager.status()
    const { healthy, canIssue, detail } = authorities.health()
    if (status.state !== 'ok' || healthy) return status
    return { ...status, state: canIssue ? 'degraded' : 'down', detail }
  }

  function status() {
    const states = new Map(
      [...authorities.states('x509'), ...authorities.states('jwt')].map((state) => [
        state.keyId,
        state,
      ]),
    )
    return {
      ...signing(),
      keys: keyManager.keys().map((key) => keyMessage(key, states.get(key.id))),
    }
  }
}

const keyMessage = ({ id, type }: SigningKey, state: AuthorityState | undefined): Key => ({
  id,
  type,
  purpose: state === undefined ? '' : state.kind === 'x509' ? 'x509-ca' : 'jwt',
  state: state?.state ?? '',
  authorityId: state?.authorityId ?? '',
  createdAt: state?.issuedAtSeconds ?? 0,
  expiresAt: state?.expiresAtSeconds ?? 0,
  nextEvent: state?.nextEvent ?? '',
  nextEventAt: state?.nextEventAtSeconds ?? 0,
})
