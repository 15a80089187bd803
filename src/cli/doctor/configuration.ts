import { ConfigError } from '#config/config-error.ts'
import { loadConfig } from '#config/parse-config.ts'
import type { Schema } from '#config/schema.ts'
import { type Finding, problem, warning, well } from './finding.ts'

/** Reads a configuration; without one there is nothing else to look at. */
export async function configurationFindings<T>(
  schema: Schema<T>,
  file: string,
  warnings: (config: T) => readonly string[],
): Promise<{ readonly config: T | undefined; readonly findings: readonly Finding[] }> {
  try {
    const config = await loadConfig(schema, file)
    const said = warnings(config).map((what) =>
      warning('configuration', what, {
        why: 'it is allowed, but probably not meant',
        remedy: `change ${file}`,
      }),
    )
    return { config, findings: [...well('configuration', `${file} is valid`), ...said] }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    const findings = error.problems.map(({ line, column, key, message }) =>
      problem(
        'configuration',
        `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}`,
        {
          why: 'the daemon does not start with it',
          remedy: `change ${file}; its keys are in configuration.md`,
        },
      ),
    )
    return { config: undefined, findings }
  }
}
