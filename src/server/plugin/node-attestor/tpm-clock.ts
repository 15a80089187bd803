import { refusal } from '#attestation/tpm-refusals.ts'
import type { VerifiedQuote } from '#tpm/verify/quote.ts'
import type { TpmClock, TpmInventoryRecord } from './tpm-inventory.ts'

/** @throws AssayError when an operator does not want this endorsement key. */
export function verifyStanding(hash: string, record: TpmInventoryRecord | undefined): void {
  if (record?.state === 'denied')
    throw refusal('endorsement-key-denied', `cannot admit TPM ${hash}: an operator has denied it`)
  if (record?.state === 'banned')
    throw refusal('endorsement-key-banned', `cannot admit TPM ${hash}: an operator has banned it`)
}

/**
 * The clock to remember, if it does not lie before the one that is (TPM 2.0 Part 1 §36): resets never become
 * fewer; between two resets neither restarts nor the time do; firmware is never older. An unsafe clock is no
 * ground for refusal: every node has one after a crash. The record is judged again, because the operator may
 * have spoken since the attestation began.
 *
 * @throws AssayError with a reason of `attestation/tpm-refusals.ts`.
 */
export function advanceClock(
  hash: string,
  present: TpmInventoryRecord | undefined,
  quote: VerifiedQuote,
): TpmClock {
  verifyStanding(hash, present)
  const { resetCount, restartCount, clock, firmwareVersion } = quote
  const next = { resetCount, restartCount, clock, firmwareVersion }
  const last = present?.clock
  if (last === undefined) return next
  if (resetCount < last.resetCount)
    throw refusal(
      'clock-reset-count-fell',
      `cannot admit TPM ${hash}: it counts ${resetCount} resets after ${last.resetCount}; if it was cleared on purpose run: assay inventory approve ${hash}`,
    )
  if (resetCount === last.resetCount && restartCount < last.restartCount)
    throw refusal(
      'clock-restart-count-fell',
      `cannot admit TPM ${hash}: it counts ${restartCount} restarts after ${last.restartCount}`,
    )
  if (resetCount === last.resetCount && clock < last.clock)
    throw refusal(
      'clock-fell',
      `cannot admit TPM ${hash}: its clock shows ${clock} ms after ${last.clock} ms`,
    )
  if (firmwareVersion < last.firmwareVersion)
    throw refusal(
      'firmware-rolled-back',
      `cannot admit TPM ${hash}: its firmware is 0x${firmwareVersion.toString(16)} after 0x${last.firmwareVersion.toString(16)}; if that was meant run: assay inventory approve ${hash}`,
    )
  return next
}
