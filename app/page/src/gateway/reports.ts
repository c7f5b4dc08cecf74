// Comparisons of whole data sets that `modelport compare` has run, as the gateway tells them. docs/compare.md has the shapes.
import { ask, askJson } from "./http";

export interface Run {
  id: string;
  created: number;
  pair: string | null;
  models: string[];
  questions: number;
  state: string;
  has_report: boolean;
}

export interface Contrast {
  model: string;
  against: string;
  measure: string;
  category: string | null;
  questions: number;
  first_mean: number | null;
  mean: number | null;
  difference: number | null;
  low: number | null;
  high: number | null;
  p_adjusted: number | null;
  wins: number;
  ties: number;
  losses: number;
  detectable: number | null;
  noise_floor: number | null;
  outcome: "better" | "worse" | "changed" | "no_difference" | "too_few";
  ground: "shown" | "interval" | "p_value" | "noise" | "too_few";
}

export interface Report {
  run: {
    id: string;
    date: string;
    models: { name: string; serving: string | null; engine: string | null; quantization: string | null }[];
    questions_file: string;
    questions: number;
    pair: string | null;
    controls: { what: string; state: "same" | "different" | "unknown"; how: string }[];
    notes: string[];
    is_whole: boolean;
  };
  findings: {
    primary: string;
    models: { model: string; asked: number; errors: number; error_texts: [string, number][] }[];
    noise: { model: string; measure: string; questions: number; difference: number; low: number; high: number; floor: number; changed: number }[];
    overall: Contrast[];
    categories: Contrast[];
    secondary: Contrast[];
    changes: { question: string; model: string; against: string; measure: string; first_score: number; score: number }[];
  };
  measures: { name: string; unit: string; text: string; chinese?: string }[];
  questions: { id: string; category: string | null; prompt: string; reference: string | null; answers: { model: string; text: string; error: string | null }[] }[];
  headline: Record<string, string[]>;
}

export async function runs(): Promise<Run[]> {
  return (await askJson<{ data: Run[] }>("v1/compare/runs")).data;
}

export function report(id: string): Promise<Report> {
  return askJson<Report>(`v1/compare/runs/${encodeURIComponent(id)}`);
}

export async function reportHtml(id: string): Promise<string> {
  return (await ask(`v1/compare/runs/${encodeURIComponent(id)}/report.html`)).text();
}
