// One file for each program: a process that reads one bundle takes less memory than one that reads the sources.
import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { build, type Metafile } from 'esbuild'

/** What is bundled: the name of the program, and the file it begins with. */
export const programs = {
  'assay-server': 'src/server/main.ts',
  'assay-signer': 'src/hsm/signer/main.ts',
  'assay-signer-service': 'src/signer/main.ts',
  'assay-agent': 'src/agent/main.ts',
  assay: 'src/cli/main.ts',
} as const

export type Program = keyof typeof programs

/** A bundled program. */
export interface Bundle {
  readonly program: Program
  /** The bundle and, beside it, `<file>.map`. */
  readonly file: string
  /** The npm packages it holds code of. */
  readonly packages: readonly string[]
}

// CommonJS packages in an ES module ask for Node's own modules by require().
const banner = `import { createRequire as requireOf } from 'node:module'; const require = requireOf(import.meta.url);`

/** Bundles a program into `output`, with `version` in place of package.json's. */
export async function bundle(
  program: Program,
  { root, output, version }: { root: string; output: string; version: string },
): Promise<Bundle> {
  const { metafile, outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [programs[program]],
    // Paths in the map are relative to it: they begin with src, wherever the checkout is.
    outfile: join(root, `${program}.mjs`),
    write: false,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    banner: { js: banner },
    external: ['pkcs11js'],
    // Readable as it is, and maps for who wants lines of the sources; Node reads them only when it is told to.
    sourcemap: true,
    sourcesContent: false,
    sourceRoot: '/usr/src/assay',
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    plugins: [
      {
        name: 'manifest',
        setup: ({ onLoad }) =>
          onLoad({ filter: /^.*\/package\.json$/ }, ({ path }) =>
            path === join(root, 'package.json')
              ? { contents: JSON.stringify({ version }), loader: 'json' }
              : undefined,
          ),
      },
    ],
  })
  const file = join(output, `${program}.mjs`)
  mkdirSync(dirname(file), { recursive: true })
  for (const { path, contents } of outputFiles)
    writeFileSync(join(output, basename(path)), contents)
  return { program, file, packages: packagesOf(metafile) }
}

function packagesOf({ inputs }: Metafile): readonly string[] {
  const names = Object.keys(inputs).map(
    (path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1],
  )
  return [...new Set(names)].filter((name) => name !== undefined).sort()
}
