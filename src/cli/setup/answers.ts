import { ConfigError } from '#config/config-error.ts'
import { object } from '#config/containers.ts'
import { path, text } from '#config/fields.ts'
import { loadConfig } from '#config/parse-config.ts'
import type { Schema } from '#config/schema.ts'
import { type CommandContext, optional, UsageError } from '../command.ts'
import type { Terminal } from './terminal.ts'

const word = () => text({ maxBytes: 4096 }).optional()

/** What may stand in `--answers` of `assay setup server`; the options have the same names with dashes. */
export const serverAnswersSchema = object({
  trust_domain: word(),
  address: word(),
  keys: word(),
  module: word(),
  token_label: word(),
  pin_file: path().optional(),
  pin_store: word(),
  signer: word(),
  endorsement_ca: path().optional(),
  allow: word(),
})

/** What may stand in `--answers` of `assay setup agent`. */
export const agentAnswersSchema = object({
  trust_domain: word(),
  server_address: word(),
  bundle_fingerprint: word(),
  tcti: word(),
  join_token_file: path().optional(),
})

/** Values by name, wherever they come from. */
export class Answers {
  readonly #context: CommandContext
  readonly #file: Readonly<Record<string, string | undefined>>
  readonly #terminal: Terminal

  private constructor(
    context: CommandContext,
    parts: { file: Readonly<Record<string, string | undefined>>; terminal: Terminal },
  ) {
    this.#context = context
    this.#file = parts.file
    this.#terminal = parts.terminal
  }

  /** @throws UsageError when the answers' file is wrong, with line and column. */
  static async load(
    context: CommandContext,
    schema: Schema<Readonly<Record<string, string | undefined>>>,
    terminal: Terminal,
  ): Promise<Answers> {
    const path = optional(context, 'answers')
    if (path === undefined) return new Answers(context, { file: {}, terminal })
    try {
      const file = await loadConfig(schema, path)
      return new Answers(context, { file, terminal })
    } catch (error) {
      if (error instanceof ConfigError) throw new UsageError(error.message, { cause: error })
      throw error
    }
  }

  /** The option, else the file's; undefined: neither has it. */
  given(name: string): string | undefined {
    return optional(this.#context, name.replaceAll('_', '-')) ?? this.#file[name]
  }

  /** {@link given}, else what somebody types, else `otherwise`. `check` throws for what cannot be. */
  async get(
    name: string,
    about: {
      readonly question: string
      readonly otherwise?: string | undefined
      readonly check?: (value: string) => unknown
    },
  ): Promise<string> {
    const { question, otherwise, check } = about
    const given = this.given(name)
    if (given !== undefined) {
      check?.(given)
      return given
    }
    if (!this.#terminal.canAsk && otherwise !== undefined) return otherwise
    for (;;) {
      const answer = await this.#terminal.ask(question, otherwise)
      try {
        check?.(answer)
        return answer
      } catch (error) {
        this.#context.note(error instanceof Error ? error.message : String(error))
      }
    }
  }
}

/** A check that the value is one of a few words. */
export const oneOfWords =
  (name: string, ...words: readonly string[]) =>
  (value: string): void => {
    if (!words.includes(value))
      throw new UsageError(`${name} is '${value}': it is ${words.join(' or ')}`)
  }
