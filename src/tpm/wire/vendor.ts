import { u32 } from './marshal.ts'

/** What a TPM says of itself by TPM2_GetCapability: for people, and to be compared with what is signed. */
export interface TpmClaims {
  /** TPM_PT_MANUFACTURER: four characters. */
  readonly manufacturer: number
  readonly firmwareVersion: bigint
  /** TPM_PT_VENDOR_STRING_1 to _4: at most 16 printable ASCII characters. */
  readonly model: string
}

/** A TPM_PT_MANUFACTURER as its four characters (TCG Vendor ID Registry): `IFX`, `INTC`; else in hex. */
export function vendorText(id: number): string {
  const text = String.fromCharCode(...u32(id)).replace(/[\0 ]+$/, '')
  return /^[!-~]+$/.test(text) ? text : id.toString(16).padStart(8, '0')
}

/** A firmware version as makers print it: its four 16-bit words in decimal, `7.85.4555.0`. */
export function firmwareText(version: bigint): string {
  return [48n, 32n, 16n, 0n].map((shift) => (version >> shift) & 0xffffn).join('.')
}
