import { createRequire } from 'node:module'
import { deviceProblem } from './problems.ts'

/** A TPM connection of the addon `assay_tpm` (native/tss2/transport.cc). Errors carry the return code as `rc`. */
export interface NativeConnection {
  /** One at a time. The timeout is honoured by devices and tabrmd, not by swtpm. */
  transmit(command: Uint8Array, timeoutMs: number): Promise<Uint8Array>
  /** Takes effect when the command under way has ended. */
  close(): void
}

/** The addon's exports. */
export interface TpmAddon {
  /** Any string is believed: `cmd:` runs a shell, and an unknown name is loaded as a library. */
  open(tcti: string): Promise<NativeConnection>
  /** What tpm2-tss says about a return code. */
  describe(rc: number): string
}

let loaded: TpmAddon | undefined

/**
 * The addon, loaded at the first call.
 *
 * @throws AssayError `failed-precondition`, reason `tpm-addon-missing`.
 */
export function tpmAddon(): TpmAddon {
  if (loaded === undefined) {
    // tpm2-tss writes every failure to standard error, also those that are expected; it reads this once.
    // biome-ignore lint/style/noProcessEnv: the one way to tell tpm2-tss
    process.env['TSS2_LOG'] ??= 'all+none'
    try {
      loaded = createRequire(import.meta.url)('#native/assay_tpm.node') as TpmAddon
    } catch (cause) {
      throw deviceProblem('tpm-addon-missing', 'cannot load assay_tpm.node', { cause })
    }
  }
  return loaded
}
