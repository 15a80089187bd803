/** The time an authority signs in, Unix seconds. */
export interface Validity {
  readonly issuedAtSeconds: number
  readonly expiresAtSeconds: number
}

/** Two authorities of a kind take turns: while one signs, the other is made ready. */
export type Slot = 'A' | 'B'

const daySeconds = 24 * 60 * 60
const prepareAtMostSeconds = 30 * daySeconds
const activateAtMostSeconds = 7 * daySeconds

const lifetime = (v: Validity): number => v.expiresAtSeconds - v.issuedAtSeconds

export const otherSlot = (slot: Slot): Slot => (slot === 'A' ? 'B' : 'A')

/** When the successor of an active authority is made: half its lifetime before its end, at most 30 days. */
export function prepareAtSeconds(active: Validity): number {
  return Math.ceil(active.expiresAtSeconds - Math.min(lifetime(active) / 2, prepareAtMostSeconds))
}

/** When the successor takes over: a sixth of the lifetime before the end, at most 7 days. */
export function activateAtSeconds(active: Validity): number {
  return Math.ceil(active.expiresAtSeconds - Math.min(lifetime(active) / 6, activateAtMostSeconds))
}

/** When the successor takes over whoever lacks it: a twelfth of the lifetime before the end, at most 3.5 days. */
export function activateAtLatestSeconds(active: Validity): number {
  return Math.ceil(
    active.expiresAtSeconds - Math.min(lifetime(active) / 12, activateAtMostSeconds / 2),
  )
}

/** Whether it is time to make a successor. */
export function shouldPrepare(active: Validity, nowSeconds: number): boolean {
  return nowSeconds >= prepareAtSeconds(active)
}

/** Whether it is time for the successor to take over. */
export function shouldActivate(active: Validity, nowSeconds: number): boolean {
  return nowSeconds >= activateAtSeconds(active)
}

/**
 * How long an authority has been in the bundle before it signs, when the one before it lasts that long: time for
 * verifiers that no agent answers for, such as programs that read the bundle from a file. `delaySeconds` is what the
 * configuration says; a twelfth of the lifetime at most.
 */
export function propagationSeconds(active: Validity, delaySeconds: number): number {
  return Math.min(delaySeconds, lifetime(active) / 12)
}

/** How long an expired authority stays in the bundle. */
export const keepExpiredSeconds = daySeconds
