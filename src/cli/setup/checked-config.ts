import { ConfigError } from '#config/config-error.ts'
import { parseConfig } from '#config/parse-config.ts'
import type { Schema } from '#config/schema.ts'
import { UsageError } from '../command.ts'
import { type Change, editConfig } from './edit-config.ts'

/** The new text, checked as the daemon will check it. */
export function checkedConfig(
  schema: Schema<unknown>,
  file: { readonly path: string; readonly before: string },
  changes: readonly Change[],
): string {
  let after: string
  try {
    after = editConfig(file.before, changes)
    parseConfig(schema, after, { file: file.path })
  } catch (error) {
    if (!(error instanceof ConfigError) && !(error instanceof SyntaxError)) throw error
    throw new UsageError(`cannot use this configuration: ${error.message}`, { cause: error })
  }
  return after
}
