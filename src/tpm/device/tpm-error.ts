import { AssayError, messageOf } from '#base/errors.ts'
import { tpmAddon } from './native.ts'
import { type DeviceProblem, deviceProblem } from './problems.ts'

/** A response code of the TPM, or a return code of a layer of tpm2-tss below it. */
export class TpmError extends Error {
  override readonly name = 'TpmError'
  readonly rc: number

  constructor(rc: number, during: string) {
    super(`${during}: ${tpmAddon().describe(rc)} (0x${rc.toString(16)})`)
    this.rc = rc
  }
}

/** TPM_RC and TSS2_RC values that are told apart (TPM 2.0 Part 2 §6.6, TSS 2.0 Overview §3.2). */
export const responseCode = {
  initialize: 0x100,
  failure: 0x101,
  contextGap: 0x901,
  objectMemory: 0x902,
  sessionMemory: 0x903,
  memory: 0x904,
  sessionHandles: 0x905,
  objectHandles: 0x906,
  yielded: 0x908,
  testing: 0x90a,
  lockout: 0x921,
  retry: 0x922,
  nvRate: 0x920,
  tctiTryAgain: 0xa0009,
  tctiIo: 0xa000a,
  tctiBadValue: 0xa000b,
  tctiNotSupported: 0xa0015,
} as const

const layerMask = 0xffff0000
const tctiLayer = 0xa0000
const resourceManagerLayers = [0xb0000, 0xc0000]

/** The TPM's own code in `rc`, also where a resource manager passed it on; undefined for other layers. */
export function tpmResponseCode(rc: number): number | undefined {
  const layer = (rc & layerMask) >>> 0
  if (layer === 0 || resourceManagerLayers.includes(layer)) return rc & 0xffff
  return undefined
}

const problems = new Map<number, DeviceProblem>([
  [responseCode.initialize, 'tpm-not-started'],
  [responseCode.failure, 'tpm-failure-mode'],
  [responseCode.contextGap, 'tpm-full'],
  [responseCode.objectMemory, 'tpm-full'],
  [responseCode.sessionMemory, 'tpm-full'],
  [responseCode.memory, 'tpm-full'],
  [responseCode.sessionHandles, 'tpm-full'],
  [responseCode.objectHandles, 'tpm-full'],
  [responseCode.yielded, 'tpm-busy'],
  [responseCode.testing, 'tpm-busy'],
  [responseCode.nvRate, 'tpm-busy'],
  [responseCode.retry, 'tpm-busy'],
  [responseCode.lockout, 'tpm-locked-out'],
  [responseCode.tctiTryAgain, 'tpm-slow'],
  [responseCode.tctiIo, 'tpm-connection-lost'],
  [responseCode.tctiBadValue, 'tpm-tcti-invalid'],
  [responseCode.tctiNotSupported, 'tpm-tcti-missing'],
])

/** TPM_RC_BAD_AUTH or TPM_RC_AUTH_FAIL of any session (format one: bit 7, number in bits 0 to 5). */
function isWrongPassword(code: number): boolean {
  const number = code & 0xbf
  return number === 0xa2 || number === 0x8e
}

/** What a device failed with, as an `AssayError` whose reason is a {@link DeviceProblem}. */
export function describeFailure(error: unknown): AssayError {
  if (error instanceof AssayError) return error
  if (!(error instanceof TpmError))
    return deviceProblem('tpm-response', messageOf(error), { cause: error })
  const code = tpmResponseCode(error.rc)
  const problem = problems.get(code ?? error.rc)
  if (problem !== undefined) return deviceProblem(problem, error.message, { cause: error })
  if (code !== undefined && isWrongPassword(code))
    return deviceProblem('tpm-authorization', error.message, { cause: error })
  if ((error.rc & layerMask) >>> 0 === tctiLayer)
    return deviceProblem('tpm-connection-lost', error.message, { cause: error })
  return deviceProblem('tpm-error', error.message, { cause: error })
}
