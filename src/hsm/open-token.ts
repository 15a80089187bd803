import { AssayError } from '#base/errors.ts'
import { HsmClient, type HsmClientOptions } from './client.ts'

/**
 * A client whose token is open now, for who does not wait.
 *
 * @throws AssayError `unavailable` when the token cannot be opened; `failed-precondition`, reason `hsm-pin-refused`,
 * when it refused the PIN: whoever tries again by itself may lock it.
 */
export async function openToken(options: Omit<HsmClientOptions, 'refusals'>): Promise<HsmClient> {
  const client = await HsmClient.open({ ...options, refusals: undefined })
  if (client.isOpen) return client
  const { status } = client
  await client[Symbol.asyncDispose]()
  if (status.state !== 'refused') {
    throw new AssayError('unavailable', `cannot open the hsm: ${status.detail}`)
  }
  throw pinRefused(status.detail)
}

/** @param detail what the token said, and what to do. */
export const pinRefused = (detail: string): AssayError =>
  new AssayError('failed-precondition', `the hsm refused the PIN: ${detail}`, {
    reason: 'hsm-pin-refused',
  })
