import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { deviceProblem } from './problems.ts'

/** A way to a TPM, in tpm2-tss's notation. Only {@link parseTcti} makes one. */
export interface Tcti {
  readonly text: string
  /** The device or socket; undefined where there is none on the file system. */
  readonly path: string | undefined
  /**
   * Whether a resource manager stands before the TPM, which shares it among programs and frees what they leave.
   * Without one the TPM has one user: us.
   */
  readonly managed: boolean
}

/**
 * Reads `device:/dev/tpmrm0`, `tabrmd`, `tabrmd:bus_type=session`, `swtpm:path=/socket` or
 * `swtpm:host=127.0.0.1,port=2321`. Nothing else may reach tpm2-tss, which runs `cmd:…` in a shell and loads
 * any other name as a library.
 *
 * @throws AssayError `invalid-argument`, reason `tpm-tcti-invalid`.
 */
export function parseTcti(text: string): Tcti {
  const device = /^device:(\/[\w/.-]+)$/.exec(text)?.[1]
  if (device !== undefined) return { text, path: device, managed: !/\/tpm\d+$/.test(device) }
  if (/^tabrmd(:[\w=,.]+)?$/.test(text)) return { text, path: undefined, managed: true }
  const socket = /^swtpm:path=(\/[\w/.-]+)$/.exec(text)?.[1]
  if (socket !== undefined) return { text, path: socket, managed: false }
  if (/^swtpm:host=[\w.:-]+,port=\d{1,5}$/.test(text))
    return { text, path: undefined, managed: false }
  throw deviceProblem('tpm-tcti-invalid', JSON.stringify(text.slice(0, 200)))
}

/**
 * Finds out why a TPM could not be opened, which tpm2-tss does not tell.
 *
 * @throws AssayError with reason `tpm-absent`, `tpm-permission` or `tpm-busy`; returns when it cannot say.
 */
export async function diagnose(tcti: Tcti, cause: unknown): Promise<void> {
  if (tcti.path === undefined) return
  try {
    const file = await open(tcti.path, constants.O_RDWR)
    await file.close()
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    const detail = `${tcti.text}: ${code}`
    if (code === 'EACCES' || code === 'EPERM')
      throw deviceProblem('tpm-permission', detail, { cause })
    if (code === 'EBUSY') throw deviceProblem('tpm-busy', detail, { cause })
    if (['ENOENT', 'ENOTDIR', 'ENODEV'].includes(code))
      throw deviceProblem('tpm-absent', detail, { cause })
    // ENXIO is how a Unix socket answers open(2), whether or not anybody listens.
    if (code === 'ENXIO' && tcti.text.startsWith('device:'))
      throw deviceProblem('tpm-absent', detail, { cause })
  }
}
