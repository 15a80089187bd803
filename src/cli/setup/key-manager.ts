import { existsSync } from 'node:fs'
import { type CommandContext, UsageError } from '../command.ts'
import { output } from '../doctor/machine.ts'
import { askPin } from '../pin-prompt.ts'
import { type Answers, oneOfWords } from './answers.ts'
import { hasSystemd } from './apply.ts'
import { type PinToKeep, pinIn } from './pin.ts'
import { pinCredentialFile, type SignerPlace } from './signer.ts'
import type { Terminal } from './terminal.ts'

/** Who is asked, and by whom. */
export interface Asking {
  readonly answers: Answers
  readonly terminal: Terminal
  readonly context: CommandContext
}

/** Where the signing keys are to be. */
export type KeyPlace =
  | { readonly kind: 'disk' }
  | { readonly kind: 'pkcs11'; readonly module: string; readonly label: string }

/** Asks for what it takes to reach the keys. */
export async function askKeyPlace({ answers, terminal, context }: Asking): Promise<KeyPlace> {
  const kind = await answers.get('keys', {
    question:
      'Where are the signing keys to be: in an HSM (pkcs11), or in a file (disk, for trials)',
    otherwise: answers.given('module') === undefined && !terminal.canAsk ? undefined : 'pkcs11',
    check: oneOfWords('keys', 'pkcs11', 'disk'),
  })
  if (kind === 'disk') return { kind: 'disk' }
  const module = await answers.get('module', {
    question: "The HSM's PKCS#11 library",
    check: (path) => {
      if (!existsSync(path)) throw new UsageError(`there is no ${path}`)
    },
  })
  if (terminal.canAsk) {
    const slots = await output('pkcs11-tool', ['--module', module, '--list-token-slots'])
    for (const [, label] of (slots ?? '').matchAll(/token label +: (.*)/g))
      context.note(`token: ${label}`)
  }
  const label = await answers.get('token_label', { question: 'The label of the token' })
  return { kind: 'pkcs11', module, label }
}

/** Asks for the PIN to keep in `file` or as a credential; undefined: what is kept already stays. */
export async function askPinToKeep(
  { answers, terminal, context }: Asking,
  { file, signer }: { readonly file: string; readonly signer: SignerPlace },
): Promise<PinToKeep | undefined> {
  const source = answers.given('pin_file')
  const isKept = existsSync(file) || existsSync(pinCredentialFile)
  if (source === undefined && (isKept || !terminal.canAsk)) return undefined
  if (source !== undefined && isKept && !existsSync(source)) {
    context.note(`there is no ${source}: the PIN that is kept already stays`)
    return undefined
  }
  const value = source === undefined ? await askedPin(context) : await pinIn(source)
  if (value === '')
    throw new UsageError(`the PIN${source === undefined ? '' : ` in ${source}`} is empty`)
  const store =
    answers.given('pin_store') === undefined && !terminal.canAsk
      ? undefined
      : await answers.get('pin_store', {
          question:
            'Keep the PIN as an encrypted credential of systemd (credential) or in a file of mode 0400 (file)',
          otherwise: hasSystemd() ? 'credential' : 'file',
          check: oneOfWords('pin_store', 'credential', 'file'),
        })
  if (source !== undefined && source !== file) {
    context.note(`the PIN is in ${source} too, which is not needed any more: remove it`)
  }
  const kept = store === undefined || store === 'credential' ? store : 'file'
  return { value, store: kept, file, signer }
}

async function askedPin(context: CommandContext): Promise<string> {
  await using asked = await askPin("the token's user", context)
  return asked === undefined ? '' : await pinIn(asked.path)
}
