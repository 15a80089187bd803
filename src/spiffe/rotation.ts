import { type Random, randomFraction } from '#base/random.ts'

/** The life of a credential. Unix times. */
export interface Lifetime {
  readonly issuedAtSeconds: number
  readonly expiresAtSeconds: number
}

/**
 * How much of a lifetime may be left when a credential is renewed: around one half, drawn from 45 to 55 % so
 * that what was issued together is not renewed together.
 */
export function rotationFraction(random: Random): number {
  return 0.45 + randomFraction(random) / 10
}

/**
 * Unix time from which a credential is to be renewed, when `fraction` (0 to 1) of its lifetime is left.
 *
 * @throws RangeError when the fraction is outside.
 */
export function rotateAtSeconds(lifetime: Lifetime, fraction: number): number {
  if (!(fraction >= 0 && fraction <= 1)) {
    throw new RangeError(`cannot rotate with ${fraction} of the lifetime left: it must be 0 to 1`)
  }
  const { issuedAtSeconds, expiresAtSeconds } = lifetime
  return expiresAtSeconds - fraction * (expiresAtSeconds - issuedAtSeconds)
}

/** Whether a credential is to be renewed now; always once it has expired. */
export function shouldRotate(
  state: Lifetime & { readonly nowSeconds: number; readonly fraction: number },
): boolean {
  return (
    state.nowSeconds >= state.expiresAtSeconds ||
    state.nowSeconds >= rotateAtSeconds(state, state.fraction)
  )
}
