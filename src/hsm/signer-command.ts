import process from 'node:process'
import { fileURLToPath } from 'node:url'

/** Program and arguments of the signer in this source tree, run by this Node. */
export function ownSigner(): readonly string[] {
  const program = fileURLToPath(import.meta.resolve('#hsm/signer/main.ts'))
  return [process.execPath, '--disable-proto=throw', '--max-semi-space-size=1', program]
}
