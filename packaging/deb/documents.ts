// The documentation as it is read on a machine that has no checkout.
import { globSync } from 'node:fs'
import { posix } from 'node:path'

/** The documents that are packaged, by their paths below docs/. Pictures are not: they would be in every node's image. */
export const documentsIn = (docs: string): readonly string[] =>
  globSync(['*.md', 'operations/*.md', 'monitoring/*'], { cwd: docs })
    .filter((file) => file !== 'README.md')
    .sort()

/** The text of `file` without links and pictures of what is not among `files`. What a link says stays. */
export function withoutDeadLinks(
  text: string,
  { file, files }: { readonly file: string; readonly files: readonly string[] },
): string {
  const isThere = (target: string): boolean => {
    if (/^([a-z]+:|#)/.test(target)) return true
    const [path = ''] = target.split('#')
    const full = posix.join(posix.dirname(file), path)
    return files.some((one) => one === full || (full.endsWith('/') && one.startsWith(full)))
  }
  return text
    .replaceAll(/^!\[[^\]]*\]\(([^)\s]+)\)\n\n?/gm, (picture, target: string) =>
      isThere(target) ? picture : '',
    )
    .replaceAll(/\[([^\]]*)\]\(([^)\s]+)\)/g, (link, said: string, target: string) =>
      isThere(target) ? link : said,
    )
}
