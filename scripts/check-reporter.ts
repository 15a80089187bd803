// Reports node:test events as one JSON line each, for scripts/check.ts to count and print.
import type { TestEvent } from 'node:test/reporters'

interface Row {
  readonly outcome: 'passed' | 'failed' | 'skipped'
  readonly name: string
  readonly file: string
  readonly why: string
}

function row(event: TestEvent): Row | undefined {
  if (event.type !== 'test:pass' && event.type !== 'test:fail') return undefined
  const { name, file, skip, todo, details } = event.data
  if (details.type === 'suite') return undefined
  const error = event.type === 'test:fail' ? (event.data.details.error as Error) : undefined
  // node:test counts a file that cannot load as one failed test named after the file.
  if (error === undefined && (skip !== undefined || todo !== undefined)) {
    return { outcome: 'skipped', name, file: file ?? '', why: String(skip ?? todo) }
  }
  const cause = error?.cause instanceof Error ? error.cause : error
  return {
    outcome: error === undefined ? 'passed' : 'failed',
    name,
    file: file ?? '',
    why: cause?.stack ?? '',
  }
}

// biome-ignore lint/style/noDefaultExport: node:test loads a reporter by its default export
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    const reported = row(event)
    if (reported !== undefined) yield `${JSON.stringify(reported)}\n`
  }
}
